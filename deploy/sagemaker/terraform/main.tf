data "aws_caller_identity" "this" {}

data "aws_region" "this" {}

locals {
  # A GPU's driver comes with the host image; this one (550, CUDA 12.4) runs the image on every GPU, a T4 too.
  host_image = can(regex("^ml\\.[gp][0-9]", var.instance_type)) ? "al2-ami-sagemaker-inference-gpu-3-1" : null

  policy = {
    account    = data.aws_caller_identity.this.account_id
    region     = data.aws_region.this.id
    bucket     = var.bucket
    repository = var.repository
    name       = var.name
  }
}

resource "aws_iam_role" "execution" {
  name_prefix        = "${var.name}-"
  assume_role_policy = templatefile("${path.module}/../policies/trust.json", local.policy)
}

resource "aws_iam_role_policy" "execution" {
  role   = aws_iam_role.execution.id
  policy = templatefile("${path.module}/../policies/execution.json", local.policy)
}

resource "aws_sagemaker_model" "this" {
  name_prefix        = "${var.name}-"
  execution_role_arn = aws_iam_role.execution.arn

  primary_container {
    image          = var.image
    model_data_url = "s3://${var.bucket}/${var.model_key}"
    environment    = var.environment
  }

  lifecycle {
    create_before_destroy = true
  }

  depends_on = [aws_iam_role_policy.execution]
}

resource "aws_sagemaker_endpoint_configuration" "this" {
  name_prefix = "${var.name}-"

  production_variants {
    variant_name                                      = "AllTraffic"
    model_name                                        = aws_sagemaker_model.this.name
    instance_type                                     = var.instance_type
    initial_instance_count                            = var.min_instances
    inference_ami_version                             = local.host_image
    model_data_download_timeout_in_seconds            = 1200
    container_startup_health_check_timeout_in_seconds = 600
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_sagemaker_endpoint" "this" {
  name                 = var.name
  endpoint_config_name = aws_sagemaker_endpoint_configuration.this.name

  deployment_config {
    blue_green_update_policy {
      traffic_routing_configuration {
        type                     = var.min_instances < 2 ? "ALL_AT_ONCE" : "CANARY"
        wait_interval_in_seconds = var.canary_seconds

        dynamic "canary_size" {
          for_each = var.min_instances < 2 ? [] : [10]

          content {
            type  = "CAPACITY_PERCENT"
            value = canary_size.value
          }
        }
      }

      termination_wait_in_seconds          = 120
      maximum_execution_timeout_in_seconds = var.canary_seconds + 3600
    }

    auto_rollback_configuration {
      alarms {
        alarm_name = aws_cloudwatch_metric_alarm.errors.alarm_name
      }
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "errors" {
  alarm_name          = "${var.name}-5xx"
  namespace           = "AWS/SageMaker"
  metric_name         = "Invocation5XXErrors"
  statistic           = "Sum"
  period              = 60
  evaluation_periods  = 1
  threshold           = var.errors_per_minute
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"

  dimensions = {
    EndpointName = var.name
    VariantName  = "AllTraffic"
  }
}

resource "aws_appautoscaling_target" "this" {
  service_namespace  = "sagemaker"
  resource_id        = "endpoint/${aws_sagemaker_endpoint.this.name}/variant/AllTraffic"
  scalable_dimension = "sagemaker:variant:DesiredInstanceCount"
  min_capacity       = var.min_instances
  max_capacity       = var.max_instances
}

resource "aws_appautoscaling_policy" "concurrency" {
  name               = "${var.name}-concurrency"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this.service_namespace
  resource_id        = aws_appautoscaling_target.this.resource_id
  scalable_dimension = aws_appautoscaling_target.this.scalable_dimension

  target_tracking_scaling_policy_configuration {
    target_value       = var.concurrent_requests
    scale_out_cooldown = 60
    scale_in_cooldown  = 300

    predefined_metric_specification {
      predefined_metric_type = "SageMakerVariantConcurrentRequestsPerModelHighResolution"
    }
  }
}
