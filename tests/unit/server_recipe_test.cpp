// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/recipe.hpp"

#include "server_test_support.hpp"

#include <csignal>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/socket.h>
#include <sys/un.h>

namespace syngate {
namespace {

std::string joined(const Argv& argv) {
    return fmt::format("{}", fmt::join(argv, "|"));
}

Recipe recipe_of(const Argv& server, const RecipeOptions& options = {}) {
    const auto recipe = make_recipe(server, options);
    EXPECT_TRUE(recipe) << recipe.error().message;
    return recipe.value_or(Recipe{});
}

Exit exit_of(const Argv& server, const RecipeOptions& options = {}) {
    const auto recipe = make_recipe(server, options);
    return recipe ? Exit::ok : recipe.error().exit;
}

Fd listen_on(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(fd.get(), 16), 0);
    return fd;
}

TEST(Signals, HaveNamesAndNumbers) {
    for (const char* name : {"HUP", "SIGHUP", "hup", "1"})
        EXPECT_EQ(parse_signal(name).value_or(-1), SIGHUP) << name;
    EXPECT_EQ(*parse_signal("SIGUSR1"), SIGUSR1);
    for (const char* name : {"", "SIG", "0", "-1", "999", "HUP ", "SIGSIGHUP", "1x"}) {
        ASSERT_FALSE(parse_signal(name)) << name;
        EXPECT_EQ(parse_signal(name).error().exit, Exit::usage) << name;
    }
}

TEST(RecipeOther, IsRestartedAndCannotBeChecked) {
    const Recipe recipe = recipe_of({"/usr/bin/memcached", "-p", "11211"});
    EXPECT_EQ(recipe.kind, "other");
    EXPECT_EQ(joined(recipe.start), "/usr/bin/memcached|-p|11211");
    EXPECT_EQ(joined(overlap_command(recipe)), "/usr/bin/memcached|-p|11211");
    EXPECT_TRUE(recipe.check.empty());
    EXPECT_EQ(recipe.reload, ReloadHow::restart);
    EXPECT_EQ(recipe.release_signal, SIGTERM);
    EXPECT_FALSE(recipe.graceful);
}

TEST(RecipeOther, IsToldByOptions) {
    const Recipe recipe = recipe_of(
        {"server"},
        {.reload = "signal=SIGUSR2", .check = " server  -t 'a b' \"c'd\"e '' ", .stop_signal = "QUIT"});
    EXPECT_EQ(recipe.reload, ReloadHow::signal);
    EXPECT_EQ(recipe.reload_signal, SIGUSR2);
    EXPECT_EQ(recipe.release_signal, SIGQUIT);
    EXPECT_EQ(joined(recipe.check), "server|-t|a b|c'de|");
    EXPECT_EQ(recipe_of({"server"}, {.reload = "overlap"}).reload, ReloadHow::overlap);
    EXPECT_EQ(recipe_of({"nginx"}, {.reload = "restart"}).reload, ReloadHow::restart);
}

TEST(RecipeOther, BadOptionsAreUsageErrors) {
    EXPECT_EQ(exit_of({}), Exit::usage);
    EXPECT_EQ(exit_of({"server"}, {.reload = "often"}), Exit::usage);
    EXPECT_EQ(exit_of({"server"}, {.reload = "signal="}), Exit::usage);
    EXPECT_EQ(exit_of({"server"}, {.reload = "signal=NONE"}), Exit::usage);
    EXPECT_EQ(exit_of({"server"}, {.stop_signal = "NONE"}), Exit::usage);
    EXPECT_EQ(exit_of({"server"}, {.check = "server 'open"}), Exit::usage);
    EXPECT_EQ(exit_of({"server"}, {.check = "  "}), Exit::usage);
}

TEST(RecipeHaproxy, IsRecognisedByItsName) {
    for (const char* name : {"haproxy", "/usr/sbin/haproxy", "haproxy-2.8", "./haproxy28"})
        EXPECT_EQ(recipe_of({name}).kind, "haproxy") << name;
    for (const char* name : {"haproxy-systemd-wrapper", "myhaproxy", "haproxy/run", "nginx-exporter"})
        EXPECT_EQ(recipe_of({name}).kind, "other") << name;
}

TEST(RecipeHaproxy, StaysInTheForegroundAndIsChecked) {
    const Recipe recipe =
        recipe_of({"haproxy", "-q", "-W", "-D", "-f", "a.cfg", "-p", "/run/h.pid", "--", "b.cfg", "-D"});
    EXPECT_EQ(joined(recipe.start), "haproxy|-db|-q|-W|-f|a.cfg|-p|/run/h.pid|--|b.cfg|-D");
    EXPECT_EQ(joined(recipe.check), "haproxy|-c|-W|-f|a.cfg|--|b.cfg|-D");
    EXPECT_EQ(recipe.reload, ReloadHow::overlap);
    EXPECT_EQ(recipe.release_signal, SIGUSR1);
    EXPECT_TRUE(recipe.graceful);
    EXPECT_EQ(joined(recipe_of({"haproxy", "-f", "a", "-db"}).start), "haproxy|-f|a|-db");
    EXPECT_EQ(joined(recipe_of({"haproxy", "-d", "-f", "a"}).start), "haproxy|-d|-f|a");
    EXPECT_EQ(joined(recipe_of({"haproxy", "-dr", "-f", "a"}).start), "haproxy|-db|-dr|-f|a");
    EXPECT_EQ(joined(recipe_of({"haproxy", "-f", "-sf"}).start), "haproxy|-db|-f|-sf");
}

TEST(RecipeHaproxy, AnotherStopSignalIsNotKnownToBeGentle) {
    EXPECT_FALSE(recipe_of({"haproxy"}, {.stop_signal = "TERM"}).graceful);
    EXPECT_TRUE(recipe_of({"haproxy"}, {.stop_signal = "USR1"}).graceful);
}

TEST(RecipeHaproxy, RefusesToBeToldWhomToReplace) {
    for (const char* flag : {"-sf", "-st"}) {
        const auto recipe = make_recipe({"haproxy", "-f", "a.cfg", flag, "12", "13"}, {});
        ASSERT_FALSE(recipe);
        EXPECT_EQ(recipe.error().exit, Exit::usage);
        EXPECT_NE(recipe.error().message.find("syngate itself"), std::string::npos);
    }
}

struct ExposedSocket : testing::Test {
    test::TempDir dir;
    std::string socket = dir / "adm.sock";
    Fd listener = listen_on(socket);

    // Whether `line`, in a configuration, leads to -x.
    bool found(const std::string& line) {
        const std::string file = dir.write("h.cfg", "global\n  daemon\n" + line + "\ndefaults\n");
        const Argv argv = overlap_command(recipe_of({"haproxy", "-f", file}));
        const bool has = joined(argv) == "haproxy|-x|" + socket + "|-db|-f|" + file;
        EXPECT_TRUE(has || joined(argv) == "haproxy|-db|-f|" + file) << joined(argv);
        return has;
    }
};

TEST_F(ExposedSocket, IsFoundHoweverItIsWritten) {
    setenv("SYNGATE_TEST_DIR", dir.path().c_str(), 1);
    EXPECT_TRUE(found("stats socket " + socket + " expose-fd listeners"));
    EXPECT_TRUE(
        found("\tstats   socket  unix@" + socket + " level admin  mode 600 expose-fd   listeners # x"));
    EXPECT_TRUE(found("stats socket " + socket + " expose-fd listeners level admin user haproxy\r"));
    EXPECT_TRUE(found("stats socket \"" + socket + "\" expose-fd listeners"));
    EXPECT_TRUE(found("stats socket '" + socket + "' expose-fd listeners"));
    EXPECT_TRUE(found("stats socket \"${SYNGATE_TEST_DIR}/adm.sock\" expose-fd listeners"));
    EXPECT_TRUE(found("stats socket \"$SYNGATE_TEST_DIR/adm.sock\" expose-fd listeners"));
    EXPECT_TRUE(found("stats socket /nowhere.sock expose-fd listeners\nstats socket " + socket +
                      " expose-fd listeners"));
}

TEST_F(ExposedSocket, IsNotFoundInOtherLines) {
    EXPECT_FALSE(found("stats socket " + socket + " level admin"));
    EXPECT_FALSE(found("# stats socket " + socket + " expose-fd listeners"));
    EXPECT_FALSE(found("stats socket " + socket + " level admin # expose-fd listeners"));
    EXPECT_FALSE(found("stats socket " + socket + " expose-fd"));
    EXPECT_FALSE(found("stats timeout " + socket + " expose-fd listeners"));
    EXPECT_FALSE(found("stats socket ipv4@127.0.0.1:1 expose-fd listeners"));
    EXPECT_FALSE(found("stats socket '$SYNGATE_TEST_DIR/adm.sock' expose-fd listeners"));
}

TEST_F(ExposedSocket, IsNotUsedWhenNobodyListens) {
    const std::string line = "stats socket " + socket + " expose-fd listeners";
    EXPECT_TRUE(found(line));
    listener.reset(); // the file stays
    EXPECT_FALSE(found(line));
    std::filesystem::remove(socket);
    EXPECT_FALSE(found(line));
}

TEST_F(ExposedSocket, IsFoundInDirectoriesAndAfterTheDashes) {
    const std::string line = "stats socket " + socket + " expose-fd listeners\n";
    std::filesystem::create_directory(dir / "d");
    const std::string d = dir / "d";
    const auto uses = [](const Argv& argv) { return joined(argv).find("|-x|") != std::string::npos; };
    dir.write("d/.hidden.cfg", line);
    dir.write("d/a.conf", line);
    EXPECT_FALSE(uses(overlap_command(recipe_of({"haproxy", "-f", d}))));
    const std::string file = dir.write("d/a.cfg", line);
    EXPECT_TRUE(uses(overlap_command(recipe_of({"haproxy", "-f", d}))));
    EXPECT_TRUE(uses(overlap_command(recipe_of({"haproxy", "-f", "/dev/null", "-f", file}))));
    EXPECT_TRUE(uses(overlap_command(recipe_of({"haproxy", "-f", "d", "-C", dir.path()}))));
    EXPECT_EQ(joined(overlap_command(recipe_of({"haproxy", "--", file}))),
              "haproxy|-x|" + socket + "|-db|--|" + file);
    EXPECT_EQ(joined(overlap_command(recipe_of({"haproxy", "-x", "/mine", "-f", file}))),
              "haproxy|-db|-x|/mine|-f|" + file);
}

struct RecipeNginx : testing::Test {
    test::TempDir dir;
    std::string configuration(const std::string& text) { return dir.write("nginx.conf", text); }
};

TEST_F(RecipeNginx, IsKeptInTheForegroundAndReloadsItself) {
    const std::string file = configuration("# daemon off;\nuser \"daemon off;\";\nevents { daemon off; }\n");
    const Recipe recipe = recipe_of({"/usr/sbin/nginx", "-c", file});
    EXPECT_EQ(recipe.kind, "nginx");
    EXPECT_EQ(joined(recipe.start), "/usr/sbin/nginx|-c|" + file + "|-g|daemon off;");
    EXPECT_EQ(joined(recipe.check), "/usr/sbin/nginx|-t|-c|" + file + "|-g|daemon off;");
    EXPECT_EQ(recipe.reload, ReloadHow::signal);
    EXPECT_EQ(recipe.reload_signal, SIGHUP);
    EXPECT_EQ(recipe.release_signal, SIGQUIT);
    EXPECT_TRUE(recipe.graceful);
}

TEST_F(RecipeNginx, IsLeftAloneWhenItStaysAnyway) {
    const std::string plain = configuration("events {}\n");
    EXPECT_FALSE(recipe_of({"nginx", "-c", plain}).uses_bpf);
    EXPECT_TRUE(recipe_of({"nginx", "-c", plain, "-g", "quic_bpf on;"}).uses_bpf);
    EXPECT_EQ(joined(recipe_of({"nginx", "-c", plain, "-g", "user root; daemon  off;"}).start),
              "nginx|-c|" + plain + "|-g|user root; daemon  off;");
    EXPECT_EQ(joined(recipe_of({"nginx", "-qc", plain, "-gdaemon off;"}).start),
              "nginx|-qc|" + plain + "|-gdaemon off;");
    const std::string file = configuration("events {}\ndaemon\n  'off' ;\n");
    EXPECT_EQ(joined(recipe_of({"nginx", "-c" + file}).start), "nginx|-c" + file);
    EXPECT_EQ(joined(recipe_of({"nginx", "-p", dir.path(), "-c", "nginx.conf"}).start),
              "nginx|-p|" + dir.path().string() + "|-c|nginx.conf");
    configuration("include inc/*.conf; events {}\n");
    std::filesystem::create_directory(dir / "inc");
    dir.write("inc/d.conf", "daemon off;");
    EXPECT_EQ(joined(recipe_of({"nginx", "-c", file}).start), "nginx|-c|" + file);
}

TEST_F(RecipeNginx, OneGlobalOptionIsMergedAsNginxObeysTheLastOnly) {
    const std::string file = configuration("events {}\n");
    EXPECT_EQ(joined(recipe_of({"nginx", "-g", "daemon off;", "-g", "user root;", "-c", file}).start),
              "nginx|-g|daemon off;|-g|daemon off; user root;|-c|" + file);
    EXPECT_EQ(joined(recipe_of({"nginx", "-guser root;", "-c", file}).start),
              "nginx|-gdaemon off; user root;|-c|" + file);
}

TEST_F(RecipeNginx, WhatCannotStayIsAUsageError) {
    EXPECT_EQ(exit_of({"nginx", "-c", configuration("daemon on;\n")}), Exit::usage);
    EXPECT_EQ(exit_of({"nginx", "-c", configuration(""), "-g", "daemon on;"}), Exit::usage);
    EXPECT_EQ(exit_of({"nginx", "-s", "reload"}), Exit::usage);
}

// The configuration's lines, as the only ones of a proxy.
bool is_transparent(const std::string& line) {
    const test::TempDir directory;
    const auto file = directory.write("haproxy.cfg", "listen a\n    " + line + "\n");
    return recipe_of({"haproxy", "-f", file}).transparent;
}

TEST(RecipeHaproxy, IsTransparentIfItsSocketsHaveForeignAddresses) {
    for (const char* line :
         {"source 0.0.0.0 usesrc clientip", "source [::] usesrc client",
          "  source 10.0.0.1  usesrc  10.0.0.9", "server one 10.0.0.2:80 source 0.0.0.0 usesrc clientip",
          "default-server source 0.0.0.0 usesrc clientip",
          "server-template s 3 a.example:80 source 0.0.0.0 usesrc clientip", "bind :80 transparent",
          "bind 0.0.0.0:80 v4v6 transparent name x"})
        EXPECT_TRUE(is_transparent(line)) << line;
    for (const char* line :
         {"source 10.0.0.1", "# source 0.0.0.0 usesrc clientip", "bind :80", "bind :80 # transparent",
          "option transparent", "http-request set-header usesrc clientip",
          "\"source\"x 0.0.0.0 usesrc clientip"})
        EXPECT_FALSE(is_transparent(line)) << line;
}

} // namespace
} // namespace syngate
