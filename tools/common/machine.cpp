#include "tools/common/machine.hpp"

#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

#include <fmt/format.h>

#include "tools/common/program.hpp"

namespace ackring::tools {

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (::sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
    }
  }
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

void pin_to_cpu(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (cpu >= 0 && cpu < CPU_SETSIZE) CPU_SET(cpu, &set);
  if (::sched_setaffinity(0, sizeof set, &set) != 0) {
    throw Failure(status_usage,
                  fmt::format("--cpu {}: can't run on this core: {}: choose one of those that nproc counts", cpu,
                              std::strerror(errno)));
  }
}

nlohmann::json machine_description() {
  nlohmann::json machine{
      {"cpu", "unknown"}, {"cores", ::sysconf(_SC_NPROCESSORS_ONLN)}, {"kernel", nullptr}, {"governor", nullptr}};
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    const auto colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) {
      machine["cpu"] = line.substr(colon + 2);
      break;
    }
  }
  utsname names{};
  if (::uname(&names) == 0) machine["kernel"] = fmt::format("{} {} {}", names.sysname, names.release, names.machine);
  std::ifstream governor("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
  if (std::string name; governor >> name) machine["governor"] = name;
  return machine;
}

}  // namespace ackring::tools
