// SPDX-License-Identifier: GPL-2.0-or-later
#include "proxy/transparent_by_iptables.hpp"

#include "netns/sandbox.hpp"

namespace syngate::bench {

using namespace live;

TransparentByIptables::TransparentByIptables() {
    for (const Argv& argv :
         {Argv{"-N", "DIVERT"}, Argv{"-A", "PREROUTING", "-p", "tcp", "-m", "socket", "-j", "DIVERT"},
          Argv{"-A", "DIVERT", "-j", "MARK", "--set-mark", "1"}, Argv{"-A", "DIVERT", "-j", "ACCEPT"}}) {
        Argv all{"iptables", "-t", "mangle"};
        all.insert(all.end(), argv.begin(), argv.end());
        must_run(all);
    }
    must_run({"ip", "rule", "add", "fwmark", "1", "lookup", "100"});
    must_run({"ip", "route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", "100"});
}

TransparentByIptables::~TransparentByIptables() {
    run({"iptables", "-t", "mangle", "-F"});
    run({"iptables", "-t", "mangle", "-X"});
    run({"ip", "rule", "delete", "fwmark", "1", "lookup", "100"});
    run({"ip", "route", "flush", "table", "100"});
}

} // namespace syngate::bench
