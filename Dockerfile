# The base needs Python 3.11 or newer with venv. For a smaller image on machines
# without a GPU, give TORCH_INDEX the address of PyTorch's index of CPU wheels.
ARG BASE=python:3.12-slim

FROM ${BASE} AS needs
ARG TORCH_INDEX=""
RUN python3 -m venv /opt/hashsearch
ENV PATH=/opt/hashsearch/bin:$PATH
WORKDIR /src
COPY constraints.txt pyproject.toml ./
# What the project needs, without the project: a change of its code fetches none of it again.
# The extra heic reads the photographs of telephones.
RUN python3 -c "import tomllib; needs = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        print(*needs['dependencies'], *needs['optional-dependencies']['heic'], sep='\n')" > needs.txt \
    && pip install --no-cache-dir --constraint constraints.txt \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --requirement needs.txt

FROM needs AS wheel
COPY README.md LICENSE ./
COPY hashsearch hashsearch
COPY service service
COPY training training
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${BASE}
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data hashsearch \
    && install --directory --owner hashsearch --group hashsearch /data
# Downloads and trained models stay on the volume, beside the gallery.
ENV PATH=/opt/hashsearch/bin:$PATH \
    XDG_CACHE_HOME=/data/cache
COPY --from=needs /opt/hashsearch /opt/hashsearch
COPY --from=wheel /wheels /opt/wheel
RUN pip install --no-cache-dir --no-index --no-deps /opt/wheel/*.whl
USER 10001:10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --start-period=60s --timeout=5s CMD ["python3", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=3)"]
ENTRYPOINT ["hashsearch"]
CMD ["serve", "--gallery", "/data/gallery", "--host", "0.0.0.0"]
