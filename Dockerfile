# Three images from one file:
#   docker build --target api        -t secateur-api .
#   docker build --target worker-cpu -t secateur-worker-cpu .
#   docker build --target worker-gpu -t secateur-worker-gpu .
#
# worker-cpu: PyPI's Linux wheel of torch carries CUDA. Name an index of CPU builds to get the small
# one: --build-arg TORCH_INDEX_URL=<index>. Left empty, the image works and is larger.

FROM python:3.12-slim AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN groupadd --system --gid 10001 secateur \
 && useradd --system --uid 10001 --gid secateur --home-dir /var/lib/secateur --create-home secateur \
 && install -d -o secateur -g secateur -m 0700 /var/lib/secateur-slots
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY pruning ./pruning
COPY store ./store
COPY secateur ./secateur
# The data folder is shared by all containers; slots are scratch space of one.
ENV SECATEUR_DATA_DIR=/var/lib/secateur SECATEUR_SLOTS_DIR=/var/lib/secateur-slots
VOLUME /var/lib/secateur /var/lib/secateur-slots

FROM base AS api
COPY api ./api
COPY worker ./worker
RUN pip install -c constraints.txt '.[service,postgres]' && python -m compileall -q /app
USER secateur
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
CMD ["python", "-m", "api", "--host", "0.0.0.0", "--port", "8080"]

FROM base AS worker
# Jobs run in Landlock and seccomp; where a container may make user namespaces, in bubblewrap too.
RUN apt-get update && apt-get install -y --no-install-recommends bubblewrap && rm -rf /var/lib/apt/lists/*
COPY api ./api
COPY worker ./worker

FROM worker AS worker-cpu
ARG TORCH_INDEX_URL=""
RUN if [ -n "$TORCH_INDEX_URL" ]; then pip install -c constraints.txt --index-url "$TORCH_INDEX_URL" torch; fi \
 && pip install -c constraints.txt '.[service,postgres,pruning]' \
 && python -m compileall -q /app
USER secateur
ENV SECATEUR_DEVICE=cpu
CMD ["celery", "-A", "worker.app", "worker", "--pool", "prefork", "--concurrency", "1", "-Q", "secateur.check,secateur.cpu", "--without-mingle", "--without-gossip"]

# PyPI's torch brings its own CUDA libraries; the host needs only the driver and container toolkit.
FROM worker AS worker-gpu
RUN pip install -c constraints.txt '.[service,postgres,pruning]' && python -m compileall -q /app
USER secateur
ENV SECATEUR_DEVICE=cuda
CMD ["celery", "-A", "worker.app", "worker", "--pool", "prefork", "--concurrency", "1", "-Q", "secateur.gpu", "--without-mingle", "--without-gossip"]
