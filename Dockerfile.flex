# The launcher of a Flex Template: the workers' image, so that both have the same Python and packages, and Google's launcher.
#   docker build -f Dockerfile.flex --build-arg WORKER_IMAGE=IMAGE --build-arg PIPELINE=features -t IMAGE-features .
ARG WORKER_IMAGE
FROM gcr.io/dataflow-templates-base/python311-template-launcher-base AS launcher

FROM ${WORKER_IMAGE}
# features or caption
ARG PIPELINE
ENV PIPELINE=${PIPELINE}
WORKDIR /template
COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
COPY scripts/flex/launch.py /template/launch.py
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/template/launch.py
ENTRYPOINT ["/opt/google/dataflow/python_template_launcher"]
