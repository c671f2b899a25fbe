# Melete with its gateway: our program, and LiteLLM in an environment of its own beside it. No secret goes into a layer.
FROM python:3.11.13-slim-bookworm

RUN useradd --create-home --uid 10001 melete
COPY pyproject.toml README.md /src/
COPY src /src/src
RUN pip install --no-cache-dir "/src[gateway,postgres,serve]"

USER melete
WORKDIR /home/melete
ENV MELETE_HOME=/home/melete/.melete MELETE_BENCH=/home/melete/bench
# LiteLLM's environment lies outside the home folder, which is a volume.
RUN MELETE_HOME=/home/melete/built melete gateway install
ENV MELETE_LITELLM=/home/melete/built/gateway/env/bin/litellm
RUN mkdir -p .melete/gateway bench

COPY deploy/start.sh deploy/answers.py /usr/local/bin/
ENTRYPOINT ["/bin/sh", "/usr/local/bin/start.sh"]
CMD ["gateway"]
