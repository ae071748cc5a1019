output "endpoint_name" {
  description = "What invoke_endpoint is told."
  value       = aws_sagemaker_endpoint.this.name
}

output "role_arn" {
  description = "The execution role."
  value       = aws_iam_role.execution.arn
}
