// Doctor: what is around a bus and may do it harm: its directory, its file system, the system's limits. All are warnings.
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>

#include "lib/exchange/bus_file.hpp"
#include "lib/exchange/doctor.hpp"

namespace ackring::exchange {

namespace {

constexpr unsigned first_normal_user = 1000;
constexpr std::uint64_t little_room_bytes = 64u << 20;

void warn(DoctorReport& report, std::string file, std::string check, std::string text) {
  report.findings.push_back({Gravity::warning, std::move(file), std::move(check), std::move(text)});
}

std::uint64_t number_in(const char* path) {
  std::uint64_t number = 0;
  std::ifstream(path) >> number;
  return number;
}

// systemd removes what a normal user has in /dev/shm when he logs out, unless it is told not to.
bool removes_ipc() {
  bool removes = true;
  bool configured = false;
  for (const char* path : {"/usr/lib/systemd/logind.conf", "/etc/systemd/logind.conf"}) {
    std::ifstream file(path);
    configured = configured || file.is_open();
    for (std::string line; std::getline(file, line);) {
      if (!line.starts_with("RemoveIPC=")) continue;
      const std::string answer = line.substr(10);
      removes = answer != "no" && answer != "false" && answer != "0" && answer != "off";
    }
  }
  return configured && removes;
}

}  // namespace

void examine_surroundings(const std::string& path, DoctorReport& report) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return;
  if (status.st_uid != ::geteuid()) {
    warn(report, "", "owner",
         "the directory belongs to user " + std::to_string(status.st_uid) + ", not to the one who looks");
  }
  if (path.starts_with("/dev/shm/") && status.st_uid >= first_normal_user && removes_ipc()) {
    warn(report, "", "remove_ipc",
         "systemd removes the bus when user " + std::to_string(status.st_uid) +
             " logs out: set RemoveIPC=no in logind.conf, or let a system user run it");
  }
  struct statvfs room {};
  if (::statvfs(path.c_str(), &room) == 0 && room.f_blocks != 0) {
    const std::uint64_t free = std::uint64_t{room.f_bavail} * room.f_frsize;
    const std::uint64_t all = std::uint64_t{room.f_blocks} * room.f_frsize;
    if (free < std::max(little_room_bytes, all / 20)) {
      warn(report, "", "room",
           "its file system has " + std::to_string(free >> 20) + " MiB left of " + std::to_string(all >> 20) +
               ": backlogs can't grow much more");
    }
  }
  // The exchange maps nearly every file of the bus, and has two descriptors for each client and publisher.
  const std::uint64_t maps = number_in("/proc/sys/vm/max_map_count");
  if (maps != 0 && report.files + 1024 > maps) {
    warn(report, "", "max_map_count",
         "the bus has " + std::to_string(report.files) + " files, and a process may map " + std::to_string(maps) +
             ": raise vm.max_map_count");
  }
  rlimit files{};
  const std::uint64_t wanted = 64 + 2 * report.publishers + report.files / 2;
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_max < wanted) {
    warn(report, "", "open_files",
         "a process may open " + std::to_string(files.rlim_max) + " files, the exchange may want " +
             std::to_string(wanted) + ": raise the hard limit");
  }
}

}  // namespace ackring::exchange
