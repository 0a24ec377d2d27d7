// Agents that talk by events: typed handlers of an EventBus, with JSON as the payload. A planner asks for tools, a tool
// runner answers, and what is no proper call becomes a dead letter rather than a crash.
//
//   build/release/examples/agent_events
//
// Prints:
//   runner: search("shared memory")
//   planner: search found 3 pages
//   runner: no tool 'fly', rejected
//   runner: summarise("3 pages")
//   planner: summarise found 1 page
#include <iostream>
#include <string>

#include <ackring/ackring.hpp>
#include <ackring/json.hpp>

using namespace std::chrono_literals;

namespace agents {

struct ToolCall {
  std::string tool;
  std::string input;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ToolCall, tool, input)

struct ToolResult {
  std::string tool;
  std::string output;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ToolResult, tool, output)

}  // namespace agents

int main() {
  using agents::ToolCall;
  using agents::ToolResult;
  auto bus = ackring::Bus::open("agent_events");
  auto planner = bus.publisher({.name = "planner"});
  auto runner = bus.publisher({.name = "runner"});
  // No workers: all handlers are called by the thread in run(), so that they may share what they like.
  ackring::EventBus events(bus, {.workers = 0});

  events.on<ToolCall>("agents.tool.call", [&](const ToolCall& call) {
    if (call.tool == "fly") {
      std::cout << "runner: no tool 'fly', rejected\n";
      throw ackring::Reject("no such tool");
    }
    std::cout << "runner: " << call.tool << "(\"" << call.input << "\")\n";
    const ToolResult result{call.tool, call.tool == "search" ? "3 pages" : "1 page"};
    // A failure to publish throws, so that the call is nacked and comes again.
    if (ackring::publish(runner, "agents.tool.result", result) != ackring::Outcome::ok)
      throw std::runtime_error("full");
  });
  events.on<ToolResult>("agents.tool.result", [&](const ToolResult& result) {
    std::cout << "planner: " << result.tool << " found " << result.output << "\n";
    if (result.tool == "summarise") return events.stop();
    (void)ackring::publish(planner, "agents.tool.call", ToolCall{"fly", ""});
    (void)ackring::publish(planner, "agents.tool.call", ToolCall{"summarise", result.output});
  });

  if (ackring::publish(planner, "agents.tool.call", ToolCall{"search", "shared memory"}) != ackring::Outcome::ok)
    return 1;
  events.run();
}
