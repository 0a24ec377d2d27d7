// ackring-exchange: one exchange that serves one bus until it is told to end.
#include <fcntl.h>
#include <grp.h>
#include <malloc.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "ackring/error.hpp"
#include "lib/exchange/host.hpp"
#include "lib/shm/descriptor.hpp"
#include "lib/shm/directory.hpp"
#include "lib/shm/segment.hpp"
#include "lib/shm/transaction_number.hpp"
#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"
#include "tools/exchange/access_file.hpp"

namespace ackring::tools {
namespace {

struct Options {
  std::string bus = "default";
  std::string directory = shm::default_directory();
  std::vector<int> cpus;
  std::size_t shards = 1;
  Wait wait = Wait::adaptive;
  int socket_group = -1;
  unsigned socket_mode = 0600;
  std::string access;
};

// What the signal handler may touch. The host outlives the handler's last use of it: main leaves it until the end.
exchange::Host* volatile serving = nullptr;
volatile std::sig_atomic_t stopping = 0;

void on_stop_signal(int /*signal*/) {
  stopping = 1;
  if (exchange::Host* host = serving; host != nullptr) host->stop();
}

// What makes a restart with many members shorter: each has a table of 256 KiB, which the allocator would map by itself.
void prepare_process(std::size_t shards) {
  shm::this_process_never_forks();
  ::mallopt(M_MMAP_THRESHOLD, 64 << 20);
  ::mallopt(M_TOP_PAD, 16 << 20);
  ::mallopt(M_ARENA_MAX, static_cast<int>(shards));
}

// The protocol of sd_notify(3): a datagram to the socket that the service manager names. Without one: nothing.
void notify_service_manager(std::string_view state) {
  const char* path = std::getenv("NOTIFY_SOCKET");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path == nullptr || path[0] == '\0' || std::strlen(path) >= sizeof address.sun_path) return;
  const std::size_t length = std::strlen(path);
  std::memcpy(address.sun_path, path, length);
  if (path[0] == '@') address.sun_path[0] = '\0';  // an abstract socket
  const shm::UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return;
  ::sendto(fd.get(), state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address),
           static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length));
}

int group_number(const std::string& name) {
  int number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error == std::errc() && end == name.data() + name.size() && number >= 0) return number;
  const group* entry = ::getgrnam(name.c_str());
  if (entry == nullptr) throw std::invalid_argument("'" + name + "' is no group here: see getent group");
  return static_cast<int>(entry->gr_gid);
}

unsigned socket_mode(const std::string& text) {
  unsigned mode = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), mode, 8);
  if (error != std::errc() || end != text.data() + text.size() || mode > 0777) {
    throw std::invalid_argument("'" + text + "' is not a mode: write it in octal, such as 0660");
  }
  return mode;
}

// Others reach the socket only if they may pass through the directories; its files stay 0600.
void let_others_through(const std::string& path) {
  const shm::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0 || (status.st_mode & 0011) == 0011) return;
  if (::fchmod(fd.get(), (status.st_mode & 07777) | 0011) != 0) {
    throw Failure(status_refused, path + ": other users can't pass through it: run chmod go+x on it as its owner");
  }
}

// What recovery finished or found damaged, and who lost his place: for an operator. Events do not wait for whoever reads
// that: a line that stderr has no room for is dropped.
void note(const std::string& line) {
  pollfd out{STDERR_FILENO, POLLOUT, 0};
  const std::string text = fmt::format("ackring-exchange: {:.2000}\n", line);  // fits a pipe that has room at all
  if (::poll(&out, 1, 0) != 1) return;
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
}

int serve(const Options& options) {
  shm::check_name("bus", options.bus);
  exchange::HostOptions host_options;
  if (!options.access.empty()) host_options.access = read_access_file(options.access);
  for (auto cpu = options.cpus.rbegin(); cpu != options.cpus.rend(); ++cpu)
    pin_to_cpu(*cpu);  // each is one; the first stays
  struct sigaction action {};
  action.sa_handler = on_stop_signal;
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGINT, &action, nullptr);

  const std::string path = options.directory + "/" + options.bus;
  const auto directory = std::make_shared<shm::FileDirectory>(path, true);
  if ((options.socket_mode & 0077) != 0) {
    let_others_through(options.directory);
    let_others_through(path);
  }
  host_options.wait = options.wait;
  host_options.shards = options.shards;
  host_options.cpus = options.cpus;
  host_options.socket_group = options.socket_group;
  host_options.socket_mode = options.socket_mode;
  host_options.guard_bus_errors = true;
  host_options.on_note = note;
  exchange::Host host(directory, options.bus, host_options);
  serving = &host;
  if (stopping != 0) host.stop();  // the signal came before there was a host to stop

  try {
    print(fmt::format("ready bus={} dir={} pid={}\n", options.bus, options.directory, ::getpid()));
  } catch (const ClosedPipe&) {
    // Whoever started it does not read; it serves all the same.
  }
  notify_service_manager(fmt::format("READY=1\nSTATUS=serving bus {}\n", options.bus));
  host.run();
  serving = nullptr;
  notify_service_manager("STOPPING=1\n");
  return status_done;
}

}  // namespace
}  // namespace ackring::tools

int main(int argc, char** argv) {
  using namespace ackring::tools;
  Options options;
  CLI::App app("Serves one ackring bus: moves events from publishers to subscriptions until SIGTERM or SIGINT.",
               "ackring-exchange");
  app.set_version_flag("--version", "ackring-exchange " ACKRING_VERSION);
  app.add_option("--bus", options.bus, "Name of the bus")->envname("ACKRING_BUS")->capture_default_str();
  app.add_option("--dir", options.directory, "Directory that holds buses; made if it is missing")
      ->envname("ACKRING_DIR")
      ->capture_default_str();
  app.add_option("--cpu", options.cpus, "Cores to run on: a list, of which the shards take one each in turn (any)")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber)
      ->type_name("LIST")
      ->allow_extra_args(false);
  app.add_option("--shards", options.shards,
                 "Threads among which subscriptions are shared out, 1 to 4: docs/architecture.md says when more pay")
      ->envname("ACKRING_SHARDS")
      ->check(CLI::Range(std::size_t{1}, ackring::shm::max_shards))
      ->type_name("N")
      ->capture_default_str();
  add_wait(app, options.wait, "What to do when there is nothing to do (adaptive: spin, then yield, then sleep)");
  add_parsed(app, "--socket-group", "GROUP", "Group of the control socket (name or number)",
             [&options](const std::string& text) { options.socket_group = group_number(text); });
  add_parsed(app, "--socket-mode", "MODE", "Mode of the control socket, octal (0600)",
             [&options](const std::string& text) { options.socket_mode = socket_mode(text); });
  app.add_option("--access", options.access,
                 "Rules that say which users may publish, subscribe and operate what (all may do all): docs/access.md")
      ->envname("ACKRING_ACCESS")
      ->type_name("FILE.toml");
  app.footer(
      "Prints `ready bus=… dir=… pid=…` when it serves. SIGTERM and SIGINT: routes what is committed, exits 0.\n"
      "Exit status 3: the bus has an exchange already, or the system refused. Tells systemd when it is ready.\n"
      "A client and a publisher need two open files each, a subscriber one; as many as `ulimit -Hn` allows.\n\n"
      "Example:\n  ackring-exchange --bus orders --cpu 1 &\n  shmtool --bus orders ping && shmtool --bus orders stat");
  return run_program("ackring-exchange", app, argc, argv, [&options] {
    prepare_process(options.shards);
    try {
      return serve(options);
    } catch (const ackring::Error& error) {
      // What shmtool answers with 1, "there is no such thing", is a refusal here: the exchange can't serve.
      if (error.code() == ackring::ErrorCode::not_found) throw Failure(status_refused, error.what());
      throw;
    }
  });
}
