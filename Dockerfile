# The image: nginx, a Java of its own, and hfserve with all that it needs. docs/image.md tells how it is built and run.
ARG BASE_IMAGE=debian:bookworm-slim

# Empty; `--build-context wheels=DIR` brings wheels that pip takes before it asks an index.
FROM scratch AS wheels


FROM ${BASE_IMAGE} AS base
# The policy keeps the package from starting a server: only the program is wanted.
RUN printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d \
 && chmod +x /usr/sbin/policy-rc.d \
 && apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates nginx python3 \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/log/alternatives.log /var/cache/debconf/*-old


FROM base AS java
# What MMS's jar refers to, without its annotation processors and SCTP.
RUN mkdir -p /usr/share/man/man1 \
 && apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends openjdk-17-jdk-headless binutils \
 && jlink --output /opt/java --no-header-files --no-man-pages --strip-debug --compress 2 --vm server \
      --add-modules java.desktop,java.logging,java.management,java.naming,java.scripting,java.sql,jdk.unsupported \
 && /opt/java/bin/java -Xshare:dump


FROM base AS packages
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv \
 && python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements.txt /build/
# The secrets are for builders behind a proxy or with an index of their own; where there are none nothing is mounted.
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=build_ca,target=/run/build_ca.pem \
    pip install --no-compile -r /build/requirements.txt
COPY container/image/slim.sh /build/
RUN sh /build/slim.sh /opt/venv
# torch and hfserve lie beside, so that each is a layer of its own.
RUN for part in torch hfserve; do python -c "import sysconfig as s; print(s.get_path('purelib', vars={'base': '/opt/$part'}))"; done \
      >"$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/parts.pth"


FROM packages AS torch
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements-torch.txt container/image/torch-cpu.txt /build/
# CPU's torch is taken by its hash; one for GPUs brings CUDA's packages along, whose versions it names itself.
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=build_ca,target=/run/build_ca.pem \
    --mount=type=bind,from=wheels,target=/wheels \
    case "$TORCH_INDEX" in */cpu) pins=torch-cpu.txt hashed=1 ;; *) pins=requirements-torch.txt hashed= ;; esac \
 && pip install --no-compile --prefix /opt/torch --find-links /wheels ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} \
      ${hashed:+--no-deps --require-hashes} -r "/build/$pins"
RUN sh /build/slim.sh /opt/torch


FROM packages AS app
# Netty would unpack it into /tmp at its start, where often nothing may be executed.
RUN mkdir /opt/jni \
 && python -m zipfile -e /opt/venv/lib/python3*/site-packages/mms/frontend/model-server.jar /build/jar \
 && cp /build/jar/META-INF/native/*_epoll_*.so /opt/jni
COPY pyproject.toml README.md /build/
COPY container /build/container
RUN pip install --no-compile --prefix /opt/hfserve --no-deps --no-index --no-build-isolation /build \
 && cp /build/container/image/entrypoint.py /build/container/image/healthcheck.py /opt/hfserve/ \
 && sh /build/slim.sh /opt/hfserve


FROM base
ENV HFSERVE_HOST=0.0.0.0 \
    JAVA_HOME=/opt/java \
    PATH=/opt/hfserve/bin:/opt/venv/bin:/opt/java/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LANG=C.UTF-8 \
    HOME=/tmp \
    HF_HOME=/tmp/huggingface \
    XDG_CACHE_HOME=/tmp/cache \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=java /opt/java /opt/java
COPY --from=torch /opt/torch /opt/torch
COPY --from=packages /opt/venv /opt/venv
COPY --from=app /opt/jni /usr/lib/jni
COPY --from=app /opt/hfserve /opt/hfserve
LABEL org.opencontainers.image.title="hfserve" \
      org.opencontainers.image.description="Any Hugging Face model behind SageMaker's /ping and /invocations" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true" \
      com.amazonaws.sagemaker.capabilities.multi-models="true" \
      com.amazonaws.sagemaker.capabilities.bidirectional-streaming="true"
# A number, as Kubernetes wants it to see that it is not root; root and any other work too.
USER 1000
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=3s --start-period=10m CMD ["python", "-I", "/opt/hfserve/healthcheck.py"]
ENTRYPOINT ["python", "-P", "/opt/hfserve/entrypoint.py"]
CMD ["serve"]
