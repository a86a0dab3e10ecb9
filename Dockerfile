# The base needs Python 3.11 or newer with venv. For a smaller image on machines
# without a GPU, give TORCH_INDEX the address of PyTorch's index of CPU wheels.
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
ARG TORCH_INDEX=""
RUN python3 -m venv /opt/hashsearch
ENV PATH=/opt/hashsearch/bin:$PATH
WORKDIR /src
COPY constraints.txt .
# PyTorch by itself: the largest layer, and the one that changes least.
RUN pip install --no-cache-dir --constraint constraints.txt \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch
COPY pyproject.toml README.md LICENSE ./
COPY hashsearch hashsearch
COPY service service
COPY training training
RUN pip install --no-cache-dir --constraint constraints.txt \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} .

FROM ${BASE}
COPY --from=build /opt/hashsearch /opt/hashsearch
RUN useradd --uid 10001 --no-create-home --home-dir /data hashsearch \
    && install --directory --owner hashsearch --group hashsearch /data
# Downloads and trained models stay on the volume, beside the gallery.
ENV PATH=/opt/hashsearch/bin:$PATH \
    XDG_CACHE_HOME=/data/cache
USER hashsearch
VOLUME /data
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python3", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=3)"]
ENTRYPOINT ["hashsearch"]
CMD ["serve", "--gallery", "/data/gallery", "--host", "0.0.0.0"]
