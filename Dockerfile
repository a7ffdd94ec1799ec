# ttca in a container of a user of its own: the hub, the runner, a member's machine. docs/docker.md has the commands.
#   docker build --tag ttca .                                       learns, verifies, serves a hub
#   docker build --tag ttca-member --build-arg EXTRAS=heic .        asks and applies only: no PyTorch
FROM python:3.12-slim AS build
ARG EXTRAS=learn,serve,postgres
# PyTorch's builds without a GPU are a fraction of the others. Empty: whatever pip takes from PyPI.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY ttca ttca
COPY proxies proxies
COPY attacks attacks
RUN python -m venv /opt/ttca \
    && case ",$EXTRAS," in \
         *,learn,*) /opt/ttca/bin/pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision ;; \
       esac \
    && /opt/ttca/bin/pip install --no-cache-dir ".[$EXTRAS]"

FROM python:3.12-slim
RUN useradd --create-home --uid 1000 ttca && install --directory --owner ttca --mode 700 /action
COPY --from=build /opt/ttca /opt/ttca
ENV PATH=/opt/ttca/bin:$PATH PYTHONUNBUFFERED=1
USER 1000
# Mount the folder of the action file here. The ledger and the collective's key are written into it.
WORKDIR /action
VOLUME /action
EXPOSE 8080
# As Ctrl-C: what is in flight comes back first.
STOPSIGNAL SIGINT
ENTRYPOINT ["ttca"]
CMD ["--help"]
