# What stands behind the gateway in docker-compose.yml beside the database: a host with sshd, the API
# of a small crew, and the script that makes keys and passwords.

ARG DEBIAN_IMAGE=debian:bookworm-slim
FROM ${DEBIAN_IMAGE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends openssh-server python3 \
 && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* \
 && useradd --create-home --shell /bin/bash demo \
 # No password opens it, and it is not locked either, which sshd would take for a no.
 && usermod --password '*' demo
COPY deploy/compose/sshd_config /etc/ssh/sshd_config
COPY deploy/compose/setup deploy/compose/crew.py /usr/local/bin/
