// The roles of the demo, each a process of its own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/common/child.hpp"
#include "tools/shmtool/demo_input.hpp"

namespace ackring::tools {

struct DemoSubscription {
  std::string name;
  std::vector<std::string> patterns;
};

struct DemoPlan {
  std::string directory;
  std::string bus = "demo";
  DemoInput input;
  std::uint64_t paced = 0;  ///< so many events are published one by one, the rest as fast as possible
  double paced_seconds = 0;
  std::vector<DemoSubscription> subscriptions;
};

/// Three subscriptions that fit the topics of the input.
[[nodiscard]] std::vector<DemoSubscription> choose_subscriptions(const DemoInput& input, bool packages);

/// Sends {"published"} when everything is routed.
void demo_publisher(const DemoPlan& plan, Channel& channel);
/// Sends "ready", some {"line"} to show, and, when it is told to end, {"acked", "wrong", "paced", "burst"}: what it acked,
/// how many deliveries were not what the plan said, and histograms of publish to take.
void demo_subscriber(const DemoPlan& plan, const DemoSubscription& subscription, Channel& channel);

}  // namespace ackring::tools
