variable "name" {
  description = "Name of the endpoint, and the beginning of all other names."
  type        = string
}

variable "image" {
  description = "URI of the image in ECR."
  type        = string
}

variable "repository" {
  description = "Name of the image's repository in ECR."
  type        = string
  default     = "hfserve"
}

variable "bucket" {
  description = "Bucket that holds the model."
  type        = string
}

variable "model_key" {
  description = "Key of the model.tar.gz in the bucket."
  type        = string
}

variable "environment" {
  description = "Variables of the container, such as HF_TASK."
  type        = map(string)
  default     = {}
}

variable "instance_type" {
  description = "Type of the instances."
  type        = string
  default     = "ml.g4dn.xlarge"
}

variable "min_instances" {
  description = "Fewest instances; a canary needs two."
  type        = number
  default     = 1
}

variable "max_instances" {
  description = "Most instances."
  type        = number
  default     = 4
}

variable "concurrent_requests" {
  description = "Requests under way for each copy of the model that scaling aims at."
  type        = number
  default     = 16
}

variable "canary_seconds" {
  description = "Seconds that an update is watched before the rest of the traffic follows."
  type        = number
  default     = 600
}

variable "errors_per_minute" {
  description = "5XX answers a minute that undo an update."
  type        = number
  default     = 1
}
