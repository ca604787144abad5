ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /source
RUN python -m venv /opt/privet
COPY constraints.txt ./
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_CONSTRAINT=/source/constraints.txt
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN /opt/privet/bin/python -m pip install --quiet '.[metrics,postgres]' \
    && /opt/privet/bin/python -m pip uninstall --quiet --yes pip

FROM ${PYTHON_IMAGE}
RUN groupadd --system --gid 10001 privet \
    && useradd --system --uid 10001 --gid privet --home-dir /var/lib/privet --shell /usr/sbin/nologin privet \
    && install -d -o privet -g privet -m 0700 /var/lib/privet
COPY --from=build /opt/privet /opt/privet
ENV PATH=/opt/privet/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PRIVET_HOST=0.0.0.0 \
    PRIVET_STORE=sqlite:////var/lib/privet/privet.db
USER 10001:10001
VOLUME /var/lib/privet
EXPOSE 8555
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --start-interval=2s CMD ["privet", "health"]
CMD ["privet", "serve"]
