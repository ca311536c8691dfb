// SPDX-License-Identifier: GPL-2.0-or-later
#include "probe/capabilities.hpp"
#include "probe/features.hpp"
#include "probe/scratch_child.hpp"

#include <algorithm>
#include <cap-ng.h>
#include <filesystem>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

namespace syngate {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view bpf_features[] = {feature::bpf,         feature::mmap_array, feature::ringbuf,
                                             feature::lpm_trie,    feature::sched_cls,  feature::xdp,
                                             feature::tcx,         feature::tc,         feature::xdp_link,
                                             feature::live_frames, feature::sk_lookup,  feature::divert};

void drop(std::initializer_list<unsigned> capabilities) {
    capng_get_caps_process();
    for (const unsigned one : capabilities)
        capng_update(CAPNG_DROP, static_cast<capng_type_t>(CAPNG_EFFECTIVE | CAPNG_PERMITTED), one);
    capng_apply(CAPNG_SELECT_CAPS);
}

// In a child process, whose namespaces and capabilities are its own to change.
nlohmann::json in_child(const std::function<nlohmann::json()>& work) {
    const auto text = in_scratch_namespace([&] { return work().dump(); }, 30s);
    return text ? nlohmann::json::parse(*text, nullptr, false) : nlohmann::json(text.error().message);
}

nlohmann::json named(const nlohmann::json& features, std::string_view name) {
    for (const auto& one : features)
        if (one.is_object() && one["name"] == name)
            return one;
    return {{"available", "missing"}, {"how", "not in the list"}};
}

class Probe : public testing::Test {
protected:
    void SetUp() override {
        if (::geteuid() != 0)
            GTEST_SKIP() << "needs root";
        if (const auto held = effective_capabilities(); !held || !held->missing_for_bpf().empty())
            GTEST_SKIP() << "needs CAP_BPF and CAP_NET_ADMIN";
    }
};

TEST_F(Probe, RootHasEverythingAndSomethingIsAttachedNowhere) {
    testing::internal::CaptureStderr();
    const Features features = probe_features();
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
    for (const std::string_view name : bpf_features) {
        const Feature* found = find_feature(features, name);
        ASSERT_NE(found, nullptr) << name;
        EXPECT_TRUE(found->available) << name << ": " << found->how;
        EXPECT_EQ(found->how.find("not probed"), std::string::npos) << name;
        EXPECT_EQ(found->how.find('\n'), std::string::npos) << found->how;
    }
    EXPECT_TRUE(find_feature(features, feature::sock_diag)->available);
    EXPECT_NE(find_feature(features, feature::tcx)->how.find("ENODEV"), std::string::npos);
    EXPECT_EQ(best_hook(features), "tcx");
    const auto json = features_to_json(features);
    EXPECT_EQ(json.size(), features.size());
    EXPECT_TRUE(named(json, feature::tc)["available"].get<bool>());
}

TEST_F(Probe, WithoutCapabilitiesTheKernelsNoIsToldByName) {
    const auto features = in_child([] {
        drop({CAP_BPF, CAP_SYS_ADMIN});
        return features_to_json(probe_features());
    });
    for (const std::string_view name : bpf_features) {
        const auto found = named(features, name);
        EXPECT_EQ(found["available"], false) << name;
        EXPECT_NE(found["how"].get<std::string>().find("EPERM"), std::string::npos) << found["how"];
    }
    EXPECT_EQ(named(features, feature::sock_diag)["available"], true);
}

TEST_F(Probe, WhatNeedsAScratchNamespaceIsTakenAsThereWithoutOne) {
    const auto features = in_child([] {
        drop({CAP_SYS_ADMIN});
        return features_to_json(probe_features());
    });
    for (const std::string_view name : {feature::tc, feature::xdp_link}) {
        const auto found = named(features, name);
        EXPECT_EQ(found["available"], true) << name;
        EXPECT_NE(found["how"].get<std::string>().find("not probed"), std::string::npos) << found["how"];
    }
    EXPECT_EQ(named(features, feature::tcx)["available"], true);
}

TEST_F(Probe, WithoutNetAdminProgramsAreRefused) {
    const auto features = in_child([] {
        drop({CAP_NET_ADMIN, CAP_SYS_ADMIN});
        return features_to_json(probe_features());
    });
    EXPECT_EQ(named(features, feature::bpf)["available"], true);
    EXPECT_EQ(named(features, feature::sched_cls)["available"], false);
    EXPECT_EQ(named(features, feature::live_frames)["available"], false);
}

TEST_F(Probe, BpffsIsFoundAboveAPathThatDoesNotExistYet) {
    const auto features = in_child([]() -> nlohmann::json {
        if (::unshare(CLONE_NEWNS) < 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) < 0 ||
            ::mount("bpf", "/mnt", "bpf", 0, nullptr) < 0)
            return std::strerror(errno);
        const auto entries = [] { // the kernel may have put some of its own there
            const std::filesystem::directory_iterator all("/mnt");
            return std::distance(begin(all), end(all));
        };
        const auto before = entries();
        nlohmann::json result = features_to_json(probe_features("/mnt/syngate/maps"));
        const bool untouched = entries() == before;
        ::umount("/mnt");
        return untouched ? result : "something was made in it";
    });
    ASSERT_TRUE(features.is_array()) << features;
    EXPECT_EQ(named(features, feature::bpffs)["available"], true) << features;
    const Features elsewhere = probe_features("/proc/self/nowhere/syngate");
    EXPECT_FALSE(find_feature(elsewhere, feature::bpffs)->available);
}

TEST_F(Probe, CapabilitiesAreTheEffectiveOnes) {
    const auto said = in_child([]() -> nlohmann::json {
        drop({CAP_BPF, CAP_SYS_ADMIN, CAP_KILL});
        const auto held = effective_capabilities();
        return {{"names", held->names()}, {"missing", held->missing_for_bpf()}};
    });
    EXPECT_EQ(said["missing"], nlohmann::json({"CAP_BPF"}));
    const auto names = said["names"].get<std::vector<std::string>>();
    EXPECT_TRUE(std::ranges::count(names, "CAP_NET_ADMIN"));
    EXPECT_FALSE(std::ranges::count(names, "CAP_BPF"));
    EXPECT_FALSE(std::ranges::count(names, "CAP_KILL"));
}

TEST(Capabilities, WhatIsMissingForBpf) {
    using Names = std::vector<std::string>;
    EXPECT_EQ(Capabilities{}.missing_for_bpf(), (Names{"CAP_BPF", "CAP_NET_ADMIN"}));
    EXPECT_EQ((Capabilities{.sys_admin = true}.missing_for_bpf()), Names{"CAP_NET_ADMIN"});
    EXPECT_EQ((Capabilities{.bpf = true, .net_admin = true}.missing_for_bpf()), Names{});
}

TEST(BestHook, IsTcxThenTcThenNone) {
    const auto with = [](bool tcx, bool tc) {
        return Features{{.name = "xdp", .available = true, .how = ""},
                        {.name = "tc", .available = tc, .how = ""},
                        {.name = "tcx", .available = tcx, .how = ""}};
    };
    EXPECT_EQ(best_hook(with(true, true)), "tcx");
    EXPECT_EQ(best_hook(with(false, true)), "tc");
    EXPECT_EQ(best_hook(with(false, false)), "");
    EXPECT_EQ(best_hook({}), "");
}

} // namespace
} // namespace syngate
