// A hostile client, as hostile as its descriptors allow: it speaks the protocol by itself, writes random bytes over all that
// it can write, cuts, punches and lengthens its files, floods the control socket and the bells, leaves connections half
// open, forks children that keep its descriptors, and tries to write what it got for reading only. It works on endpoints of
// its own and asks for nothing that would be granted to anybody (to pause somebody else's subscription, say).
#pragma once

#include <fcntl.h>
#include <grp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <random>

#include "lib/control/socket.hpp"
#include "lib/shm/format.hpp"
#include "tests/processes/support.hpp"

namespace ackring::test {

inline constexpr uid_t nobody = 65534;

class Attacker {
 public:
  Attacker(std::string directory, std::uint64_t seed) : directory_(std::move(directory)), random_(seed) {}

  /// Another user than the exchange's, where this process may choose.
  void become_somebody_else() {
    if (::geteuid() != 0) return;
    require(::setgroups(0, nullptr) == 0 && ::setgid(nobody) == 0 && ::setuid(nobody) == 0, "can't become nobody");
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a change of user forgets it
    foreign_ = true;
  }

  /// One attack of a kind that chance chooses. Throws where the exchange let something through.
  void attack() {
    ++attacks_;
    try {
      if (!connected_ || chance(8)) connect();
      if (!connected_) return;
      switch (random_() % 12) {
        case 0:
        case 1:
          scribble();
          break;
        case 2:
        case 3:
          cut();
          break;
        case 4:
          flood();
          break;
        case 5:
          say_nonsense();
          break;
        case 6:
          play_with_bells();
          break;
        case 7:
          ask_costly_things();
          break;
        case 8:
          half_open();
          break;
        case 9:
          keep_in_children();
          break;
        case 10:
          steal_place();
          break;
        case 11:
          write_to_read_only();
          break;
      }
    } catch (const Error&) {
      connected_ = false;  // nobody listens just now, or no descriptor is left
    }
  }
  [[nodiscard]] std::uint64_t attacks() const noexcept { return attacks_; }
  /// Requests that were answered with anything.
  [[nodiscard]] std::uint64_t answers() const noexcept { return answers_; }

 private:
  using Json = control::Json;
  struct File {
    shm::UniqueFd fd;
    std::byte* at = nullptr;
    std::size_t bytes = 0;
    ~File() {
      if (at != nullptr) ::munmap(at, bytes);
    }
  };

  bool chance(unsigned of) { return random_() % of == 0; }

  control::Socket open_socket() { return control::Socket::connect(directory_ + "/" + bus_name + "/exchange.sock"); }

  // An answer, if one comes soon; the descriptors that came with it are kept in `received_`.
  std::optional<Json> ask(Json request, std::vector<shm::UniqueFd>* descriptors = nullptr) {
    request["id"] = 1;
    if (socket_.send(request) != control::SendStatus::sent) {
      connected_ = false;
      return std::nullopt;
    }
    control::Message message;
    std::string reason;
    if (!socket_.wait_readable(100'000'000)) return std::nullopt;
    if (socket_.receive(message, reason) != control::ReceiveStatus::message) {
      connected_ = false;
      return std::nullopt;
    }
    ++answers_;
    if (!message.body.value("ok", false)) return std::nullopt;
    if (descriptors != nullptr) *descriptors = std::move(message.descriptors);
    return message.body;
  }

  void connect() {
    writable_.clear();
    read_only_.clear();
    bells_.clear();
    lock_.reset();
    socket_ = open_socket();
    connected_ = true;
    std::vector<shm::UniqueFd> got;
    const auto hello =
        ask({{"op", "hello"}, {"layout", shm::layout_version}, {"membarrier", true}, {"name", "evil"}}, &got);
    if (!hello || got.size() < 3) return;
    read_only_.push_back(std::move(got[0]));
    read_only_.push_back(std::move(got[1]));
    lock_ = std::move(got[2]);
    for (int i = 0; i < 2; ++i) {
      if (!ask({{"op", "publisher"}, {"name", ""}, {"ring_bytes", 64 << 10}}, &got) || got.size() < 3) return;
      add_writable(std::move(got[0]));
      read_only_.push_back(std::move(got[1]));
      bells_.push_back(std::move(got[2]));
      // The options of another subscription on a topic that nobody else has.
      if (!ask({{"op", "subscribe"},
                {"name", ""},
                {"ephemeral", true},
                {"patterns", {"evil.#"}},
                {"options", {{"ring_bytes", 64 << 10}, {"max_in_flight", 64}}}},
               &got) ||
          got.size() < 3) {
        return;
      }
      read_only_.push_back(std::move(got[0]));
      add_writable(std::move(got[1]));
      bells_.push_back(std::move(got[2]));
    }
    define_topic();
  }

  void add_writable(shm::UniqueFd fd) {
    auto file = std::make_unique<File>();
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) return;
    file->bytes = static_cast<std::size_t>(status.st_size);
    void* const at = ::mmap(nullptr, file->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    file->fd = std::move(fd);
    if (at != MAP_FAILED) file->at = static_cast<std::byte*>(at);
    writable_.push_back(std::move(file));
  }

  // A topic and some events as any client would write them, so that the scribbling comes later than at the first look.
  void define_topic() {
    if (writable_.empty() || writable_[0]->at == nullptr) return;
    auto* page = reinterpret_cast<shm::IngressRing*>(writable_[0]->at);
    std::byte* to = writable_[0]->at + shm::page_bytes;
    std::uint64_t at = 0;
    for (std::uint32_t i = 0; i < 20; ++i) {
      shm::RecordHeader header{};
      const std::string text = i == 0 ? "evil.x" : std::string(16, 'e');
      header.bytes = 64;
      header.kind = static_cast<std::uint16_t>(i == 0 ? shm::RecordKind::topic : shm::RecordKind::event);
      header.sequence = i;
      header.topic = 1;
      header.payload_bytes = static_cast<std::uint32_t>(text.size());
      std::memcpy(to + at, &header, sizeof header);
      std::memcpy(to + at + sizeof header, text.data(), text.size());
      at += header.bytes;
    }
    page->tail.store(at, std::memory_order_release);
    ring_bells(1);
  }

  // A file that is cut short ends its writer as well; with write() there is only an error.
  void scribble() {
    if (writable_.empty()) return;
    File& file = *writable_[random_() % writable_.size()];
    std::array<std::uint64_t, 64> noise{};
    for (std::uint64_t& word : noise) word = chance(3) ? random_() : random_() % 4096;
    const int pieces = static_cast<int>(random_() % 200);
    for (int i = 0; i < pieces; ++i) {
      const std::size_t bytes = 8 + random_() % (sizeof noise - 8);
      // The words that X reads most are on the first page.
      const std::size_t offset = chance(2) ? 8 * (random_() % 512) : random_() % file.bytes;
      (void)!::pwrite(file.fd.get(), noise.data(), bytes, static_cast<off_t>(offset));
    }
    ring_bells(1);
  }

  void cut() {
    if (writable_.empty()) return;
    const File& file = *writable_[random_() % writable_.size()];
    const auto bytes = static_cast<off_t>(file.bytes);
    switch (random_() % 4) {
      case 0:
        (void)!::ftruncate(file.fd.get(), static_cast<off_t>(random_() % file.bytes));
        break;
      case 1:
        (void)!::ftruncate(file.fd.get(), 0);
        break;
      case 2:
        (void)!::ftruncate(file.fd.get(), off_t{1} << (random_() % 16 + 24));  // a hole: it takes no memory
        break;
      case 3:
        (void)!::fallocate(file.fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                           static_cast<off_t>(random_() % file.bytes), bytes);
        break;
    }
    ring_bells(1);
  }

  void ring_bells(int times) {
    const std::array<char, 512> rings{};
    for (const shm::UniqueFd& bell : bells_) {
      for (int i = 0; i < times; ++i)
        (void)!::send(bell.get(), rings.data(), rings.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    }
  }

  void play_with_bells() {
    std::array<char, 512> stolen{};
    for (int i = 0; i < 300; ++i) {
      ring_bells(3);
      for (const shm::UniqueFd& bell : bells_) (void)!::recv(bell.get(), stolen.data(), stolen.size(), MSG_DONTWAIT);
    }
  }

  // Requests without end whose answers nobody reads.
  void flood() {
    for (int i = 0; i < 1'000; ++i) {
      if (socket_.send({{"op", "ping"}, {"id", i}}) == control::SendStatus::closed) {
        connected_ = false;
        return;
      }
    }
    if (chance(2)) connected_ = false;
  }

  void ask_costly_things() {
    for (int i = 0; i < 8 && connected_; ++i) {
      (void)ask({{"op", "stat"}});
      (void)ask({{"op", "peek"}, {"name", "steady"}, {"at_most", 4096}});
      (void)ask({{"op", "explain"}, {"name", "steady"}, {"delivery", random_() % 1'000'000}});
      if (i % 4 == 0) (void)ask({{"op", "publisher"}, {"name", ""}, {"ring_bytes", 1 << 20}});
    }
  }

  void say_nonsense() {
    std::string text;
    switch (random_() % 6) {
      case 0:
        text = std::string(60'000, '[');
        break;
      case 1:
        text = "{\"op\":\"hello\",\"layout\":\"" + std::string(60'000, 'x') + "\"}";
        break;
      case 2:
        text = R"({"op":"subscribe","id":1,"name":"","ephemeral":true,"patterns":[)" + std::string(2, '"') +
               R"(],"options":{"ring_bytes":18446744073709551615}})";
        break;
      case 3:
        text = std::string(200'000, 'y');  // more than a message may have
        break;
      case 4:
        for (int i = 0; i < 300; ++i) text += static_cast<char>(random_());
        break;
      case 5:
        text = R"({"op":"settle","id":1,"subscription":)" + std::to_string(random_()) + R"(,"ack_page":1})";
        break;
    }
    if (chance(3)) {  // descriptors that nobody asked for
      const std::vector<int> surplus(8, socket_.fd());
      (void)socket_.send({{"op", "ping"}, {"id", 1}}, surplus);
    }
    (void)!::send(socket_.fd(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    control::Message message;
    std::string reason;
    if (socket_.wait_readable(10'000'000)) (void)socket_.receive(message, reason);
    connected_ = false;
  }

  void half_open() {
    std::vector<control::Socket> sockets;
    for (int i = 0; i < 100; ++i) sockets.push_back(open_socket());
    for (control::Socket& socket : sockets) {
      if (chance(3)) (void)!::send(socket.fd(), "{", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    if (half_open_.size() < 3) half_open_.push_back(std::move(sockets));
  }

  // The lock of a client that is gone lives on in a child, and so do its doorbells.
  void keep_in_children() {
    while (::waitpid(-1, nullptr, WNOHANG) > 0) --children_;
    if (children_ >= 8) return;
    const pid_t parent = ::getpid();
    const pid_t child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() == parent) ::poll(nullptr, 0, 2'000);
      ::_exit(0);
    }
    if (child > 0) ++children_;
    connected_ = false;
  }

  // The place of a client of another user is not to be had.
  void steal_place() {
    control::Socket socket = open_socket();
    const std::uint64_t wanted = 1 + random_() % 3;  // the others came first
    (void)socket.send(
        {{"op", "hello"}, {"id", 1}, {"layout", shm::layout_version}, {"membarrier", true}, {"client", wanted}});
    control::Message message;
    std::string reason;
    if (!socket.wait_readable(300'000'000)) return;
    if (socket.receive(message, reason) != control::ReceiveStatus::message) return;
    require(!foreign_ || !message.body.value("ok", false), "it took the place of another user's client");
  }

  void write_to_read_only() {
    for (const shm::UniqueFd& fd : read_only_) {
      require(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0) == MAP_FAILED,
              "it mapped for writing what it got for reading");
      require(::ftruncate(fd.get(), 0) != 0, "it cut short what it got for reading");
      require(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) != 0,
              "it punched what it got for reading");
      if (!foreign_) continue;
      const std::string link = "/proc/self/fd/" + std::to_string(fd.get());
      const shm::UniqueFd again(::open(link.c_str(), O_RDWR | O_CLOEXEC));
      require(!again, "it opened for writing what it got for reading");
      require(::fchmod(fd.get(), 0666) != 0, "it changed the mode of a file of the bus");
    }
    if (!foreign_) return;
    const std::string bus = directory_ + "/" + bus_name + "/";
    for (const char* name : {"exchange", "topics", "exchange.lock", "sub.1.state", "client.1.lock"}) {
      require(!shm::UniqueFd(::open((bus + name).c_str(), O_RDONLY | O_CLOEXEC)),
              "it opened a file of the bus by name");
    }
    require(!shm::UniqueFd(::open((bus + "new").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)),
            "it made a file in the bus's directory");
    require(::unlink((bus + "exchange.sock").c_str()) != 0, "it removed the socket");
  }

  std::string directory_;
  std::mt19937_64 random_;
  bool foreign_ = false;
  bool connected_ = false;
  std::uint64_t attacks_ = 0;
  std::uint64_t answers_ = 0;
  int children_ = 0;
  control::Socket socket_;
  shm::UniqueFd lock_;
  std::vector<std::unique_ptr<File>> writable_;
  std::vector<shm::UniqueFd> read_only_;
  std::vector<shm::UniqueFd> bells_;
  std::vector<std::vector<control::Socket>> half_open_;
};

}  // namespace ackring::test
