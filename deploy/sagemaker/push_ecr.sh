#!/bin/sh
# Pushes an image to this account's ECR, where SageMaker takes it from, and prints its address there:
#   push_ecr.sh IMAGE [REPOSITORY]
# Account and region are those of the AWS command line. The repository is made where there is none. ENGINE=podman
# pushes with podman.
set -eu
image=$1 repository=${2:-hfserve} engine=${ENGINE:-docker}

say() { printf '%s\n' "$*" >&2; }

uri() {
  aws ecr describe-repositories --repository-names "$repository" --query 'repositories[0].repositoryUri' --output text
}

tag=$("$engine" image inspect --format '{{index .Config.Labels "org.opencontainers.image.version"}}' "$image")
[ -n "$tag" ] || { say "$image has no label org.opencontainers.image.version to name it by"; exit 1; }
if ! uri >/dev/null 2>&1; then
  say "making the repository $repository"
  aws ecr create-repository --repository-name "$repository" --image-scanning-configuration scanOnPush=true >/dev/null
fi
target=$(uri):$tag
aws ecr get-login-password | "$engine" login --username AWS --password-stdin "${target%%/*}" >&2
"$engine" tag "$image" "$target"
# SageMaker refuses OCI's manifests and lists of manifests; Docker's own push keeps the form of what was built.
case $engine in *podman) form="--format v2s2" ;; *) form= ;; esac
# shellcheck disable=SC2086
"$engine" push $form "$target" >&2
pushed=$(aws ecr batch-get-image --repository-name "$repository" --image-ids "imageTag=$tag" \
  --query 'images[0].imageManifestMediaType' --output text)
if [ "$pushed" != application/vnd.docker.distribution.manifest.v2+json ]; then
  say "SageMaker would refuse $target, its manifest is $pushed;" \
    "build it with: docker buildx build --platform linux/amd64 --provenance=false --output type=docker"
  exit 1
fi
printf '%s\n' "$target"
