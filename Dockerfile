# The pages and the JSON API, or the command line, in a container without rights.
#
#   docker build --tag detectors .                          # the CPU's PyTorch
#   docker build --tag detectors --build-arg DEVICE=cuda .  # the lock's, which brings CUDA
#   docker run --rm --publish 127.0.0.1:8000:8000 detectors
#   docker run --rm --network none --volume "$PWD/photos:/photos:ro" detectors main.py --input /photos
#
# Base images and uv are pinned by version; whoever needs builds that are the same to the byte pins
# the image's digest too.
ARG PYTHON=3.12.12-slim-bookworm

FROM python:${PYTHON} AS build
# cpu or cuda. CUDA's libraries are wheels of the lock: the host brings the driver alone.
ARG DEVICE=cpu
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
WORKDIR /app
RUN pip install --no-cache-dir uv==0.13.9
COPY pyproject.toml uv.lock ./
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# The lock's PyTorch has CUDA's libraries, 4 GB of them. The CPU's is built apart, of the same
# version, and is all that does not come from the lock.
RUN case "$DEVICE" in \
        cuda) uv sync --frozen --no-cache --extra plots --extra pages --extra credentials ;; \
        cpu) \
            version() { sed -n "/^name = \"$1\"$/{n;s/version = \"\(.*\)\"/\1/p}" uv.lock; }; \
            mapfile -t apart < <(sed -nE \
                's/^name = "(torch|torchvision|triton|cuda-.*|nvidia-.*)"$/--no-install-package=\1/p' \
                uv.lock); \
            uv sync --frozen --no-cache --extra plots --extra pages --extra credentials \
                "${apart[@]}"; \
            uv pip install --no-cache --no-deps --torch-backend cpu \
                "torch==$(version torch)" "torchvision==$(version torchvision)" ;; \
        *) echo "DEVICE: expected cpu or cuda; found '$DEVICE'" >&2; exit 2 ;; \
    esac
COPY . .

FROM python:${PYTHON}
RUN useradd --uid 10001 --create-home scorer
# Owned by root: who breaks out of a decoder changes neither code nor weights.
COPY --from=build /app /app
USER 10001
WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1
EXPOSE 8000
# Of the server; who scores gives --no-healthcheck.
HEALTHCHECK --start-period=60s --interval=30s --timeout=5s CMD ["python", "-c", \
    "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["python"]
CMD ["scripts/serve.py", "--host", "0.0.0.0", "--port", "8000"]
