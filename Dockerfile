# docker build -t perturbcore .                          runs on CPUs
# docker build -t perturbcore --build-arg TORCH=cu130 .  torch for NVIDIA GPUs
# docker run -v "$PWD/results:/perturbcore/results" -v "$PWD/_build:/perturbcore/_build" perturbcore
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

RUN apt-get update \
 && apt-get install -y --no-install-recommends make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /perturbcore

# the environment first: it stays as it is where only chapters or pages change
ARG TORCH=cpu
ENV UV_TORCH_BACKEND=${TORCH}
COPY pyproject.toml constraints.txt README.md LICENSE Makefile _config.yml _toc.yml ./
COPY src src
RUN make .venv/.ready

COPY . .
# a build that cannot run a chapter fails here
RUN make run CHAPTER=protocol_constants && rm -rf results
ENV PATH=/perturbcore/.venv/bin:$PATH
CMD ["make", "book"]
