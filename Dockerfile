# Two images, which `make image` builds:
#   runtime   enlarges images with an exported model: deploy/, numpy, ONNX Runtime and Pillow; no torch, no pipeline
#   pipeline  everything: sr-pipeline with PyTorch and OpenVINO
#
# BASE is any image with Python 3.11 or newer and pip; for NVIDIA GPUs, the full name of NVIDIA's TensorRT image. A tag
# may come to mean a newer image: NAME@sha256:DIGEST is pinned.
# The build secret `pip` is a configuration file for pip. It is read while packages are installed and stays in no layer.

ARG BASE=python:3.11-slim-bookworm

# The virtual environment has no pip of its own: the base's installs into it.
FROM ${BASE} AS base
# Every user may write to HOME, so `--user` takes any. ONNX Runtime reports its use unless it is told not to.
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp ORT_DISABLE_TELEMETRY=1
RUN python3 -m venv --without-pip /opt/venv \
    && useradd --uid 10001 --user-group --home-dir /tmp sr \
    && install --directory --owner=sr --group=sr /work
WORKDIR /opt/sr-pipeline


FROM base AS runtime
# Packages of other runtimes, with their versions where constraints.txt does not hold them.
ARG RUNTIMES=onnxruntime
COPY constraints.txt .
# What goes again: tests, what prepares models, and libonnxruntime.so, which is for callers from C.
RUN --mount=type=secret,id=pip \
    PIP_CONFIG_FILE=/run/secrets/pip pip --no-cache-dir --python /opt/venv/bin/python \
        install --no-compile --constraint constraints.txt numpy pillow ${RUNTIMES} \
    && find /opt/venv -regextype egrep \
        -regex '.*/(tests|onnxruntime/(quantization|tools|transformers)|libonnxruntime\.so\..*)' -prune -exec rm -r {} +
COPY deploy/*.py deploy/
ENV PYTHONPATH=/opt/sr-pipeline PYTHONDONTWRITEBYTECODE=1
USER sr
WORKDIR /work
RUN python -c "import deploy.upscale, PIL"
ENTRYPOINT ["python", "-m", "deploy.upscale"]
CMD ["--help"]


FROM base AS pipeline
# Optional dependencies of pyproject.toml, separated by commas.
ARG EXTRAS=openvino
# What pip must see to install the dependencies, and to install the project in place before its source is there:
# a change of the source leaves this layer as it is.
COPY pyproject.toml constraints.txt LICENSE ./
COPY pipeline/__init__.py pipeline/
COPY deploy/__init__.py deploy/
RUN --mount=type=secret,id=pip \
    touch README.md \
    && PIP_CONFIG_FILE=/run/secrets/pip pip --no-cache-dir --python /opt/venv/bin/python \
        install --constraint constraints.txt --editable ".[${EXTRAS}]"
COPY pipeline.toml ./
COPY deploy/*.py deploy/
COPY pipeline pipeline
USER sr
WORKDIR /work
RUN sr-pipeline --version && python -c "import pipeline.stages"
ENTRYPOINT ["sr-pipeline"]
CMD ["--help"]
