# SPDX-License-Identifier: GPL-2.0-or-later
# HAProxy from Debian under syngate. The base may be any Debian 12 or 13: --build-arg BASE=...
# Any builder will do: nothing here is BuildKit's alone.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS build
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
    g++ cmake ninja-build make pkg-config clang bpftool dpkg-dev file \
    libbpf-dev libelf-dev zlib1g-dev libmnl-dev libnetfilter-queue-dev libsystemd-dev libcap-ng-dev \
    libfmt-dev libspdlog-dev nlohmann-json3-dev libcli11-dev linux-libc-dev
WORKDIR /src
# What is compiled comes first: no text that changes has it compiled again.
COPY CMakeLists.txt Makefile.bpf ./
COPY vmlinux vmlinux
COPY include include
COPY bpf bpf
COPY agent agent
COPY deploy/package.cmake deploy/package.cmake
RUN cmake -S . -B /build -G Ninja -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS=-O2 -DSYNGATE_TESTS=OFF -DSYNGATE_WERROR=OFF \
    && cmake --build /build
COPY . .
RUN cd /build && cpack && mkdir /package && mv syngate_*.deb /package/syngate.deb

FROM ${BASE}
# The package knows which libraries it needs; HAProxy's makes the user `haproxy`. It is copied, not mounted: with a
# mount, some builders (podman 4.3) take the layer with an older package from their cache.
COPY --from=build /package/syngate.deb /tmp/
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
    haproxy iptables /tmp/syngate.deb \
    && rm -rf /tmp/syngate.deb /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/*.log
COPY deploy/container/*.cfg /usr/local/share/syngate/
# Where Debian's configuration has HAProxy's socket. HAProxy makes it as root, for which a directory of the user
# haproxy, as Debian's own, takes DAC_OVERRIDE.
RUN install --directory --mode=2775 --group=haproxy /run/haproxy
# HAProxy before 2.9 keeps no capability when it changes its user: there it stays root for transparent sockets.
# Of a valid file without a listener it says 2.
RUN mkdir -p /usr/local/etc/haproxy && cd /usr/local/share/syngate \
    && if haproxy -c -f setcap.cfg >/dev/null 2>&1; [ $? -eq 1 ]; then rm setcap.cfg; fi
# One agent of a container, so that `docker exec ... syngate reload` finds it where several share the host's network.
# A reload on a change of the directory: Kubernetes swaps a link in it, editors rename in it. A successor of another
# container waits for the ports.
ENV HAPROXY_PORTS=80,443 \
    SYNGATE_CONTROL=/run/syngate/syngate.sock \
    SYNGATE_PID_FILE=/run/haproxy.pid \
    SYNGATE_WATCH=/usr/local/etc/haproxy \
    SYNGATE_WAIT_FOR_PORTS=10s
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/sbin/syngate", "entrypoint"]
