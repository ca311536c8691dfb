// SPDX-License-Identifier: GPL-2.0-or-later
// A server like most of one's own: one listening socket, no SO_REUSEPORT, no reload, one connection after the
// other, and SIGTERM ends it at once. Answers every request with "ok".
//
// Usage: syngate-serve PORT [FILE]    writes the instant of its start (CLOCK_MONOTONIC, ns) to FILE
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

namespace {

constexpr char answer[] = "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n";

bool write_stamp(const char* path) {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    std::FILE* file = std::fopen(path, "w");
    if (file == nullptr)
        return false;
    std::fprintf(file, "%lld\n", static_cast<long long>(now.tv_sec) * 1'000'000'000 + now.tv_nsec);
    return std::fclose(file) == 0;
}

int listen_on(int port) {
    const int fd = ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int yes = 1;
    const int no = 0;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(static_cast<std::uint16_t>(port));
    if (::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || ::listen(fd, 4096) != 0)
        return -1;
    return fd;
}

// A client that sends nothing must not keep the others waiting.
void serve(int connection) {
    const timeval patience{1, 0};
    ::setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    char request[4096];
    if (::recv(connection, request, sizeof request, 0) > 0)
        ::send(connection, answer, sizeof answer - 1, MSG_NOSIGNAL);
    ::close(connection);
}

} // namespace

int main(int argc, char** argv) {
    if (argc > 2 && !write_stamp(argv[2])) {
        std::perror(argv[2]);
        return 1;
    }
    const int port = argc > 1 ? std::atoi(argv[1]) : 0;
    const int listener = port > 0 && port < 65536 ? listen_on(port) : -1;
    if (listener < 0) {
        std::fprintf(stderr, "syngate-serve: cannot listen on port '%s'\n", argc > 1 ? argv[1] : "");
        return 1;
    }
    while (true) {
        const int connection = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
        if (connection >= 0)
            serve(connection);
    }
}
