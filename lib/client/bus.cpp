#include "ackring/bus.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "lib/client/connection.hpp"
#include "lib/client/member.hpp"
#include "lib/client/publisher_endpoint.hpp"
#include "lib/control/subscription_codec.hpp"
#include "lib/shm/system_error.hpp"

namespace ackring {
namespace {

using client::Json;

Json definition(const char* op, const SubscriptionOptions& options) {
  control::check_options(options);
  shm::check_name("subscription", options.name);
  return {{"op", op},
          {"name", options.name},
          {"patterns", options.patterns},
          {"options", control::options_to_json(options)},
          {"given", control::given_options(options)}};
}

std::string read_all(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) throw shm::system_error("stat document", "can't read its size", errno);
  std::string content(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t done = 0;
  while (done < content.size()) {
    const ssize_t got = ::pread(fd, content.data() + done, content.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw shm::system_error("stat document", "can't read it", errno);
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  content.resize(done);
  return content;
}

}  // namespace

Bus::Bus(std::shared_ptr<client::Connection> connection) noexcept : connection_(std::move(connection)) {}

Bus Bus::open(std::string_view name, BusOptions options) {
  return Bus(client::Connection::open(name, std::move(options)));
}

Bus Bus::in_memory() { return Bus(client::Connection::in_memory()); }

Publisher Bus::publisher(PublisherOptions options) {
  connection_->check_usable();
  std::shared_ptr<client::PublisherEndpoint> endpoint(new client::PublisherEndpoint(connection_, options.wait),
                                                      client::UnlessForked{});
  endpoint->open(options);
  return Publisher(std::move(endpoint));
}

Subscriber Bus::subscribe(SubscriptionOptions options) {
  connection_->check_usable();
  std::shared_ptr<client::Member> member(new client::Member(connection_, options.wait), client::UnlessForked{});
  member->join(options);
  return Subscriber(std::move(member));
}

void Bus::create_subscription(const SubscriptionOptions& options) {
  (void)connection_->request(definition("subscription_create", options));
}

void Bus::update_subscription(const SubscriptionOptions& options) {
  Json request = definition("subscription_update", options);
  // Every option counts, so that one can go back to its default.
  request["given"] = Json::array();
  for (const auto& [option, value] : request["options"].items()) request["given"].push_back(option);
  (void)connection_->request(std::move(request));
}

SubscriptionOptions Bus::subscription(std::string_view name) {
  shm::check_name("subscription", name);
  const client::Reply reply = connection_->request({{"op", "subscription_get"}, {"name", name}});
  return control::options_from_json(client::reply_field<std::string>(reply.body, "name"),
                                    client::reply_field<std::vector<std::string>>(reply.body, "patterns"),
                                    client::reply_field<Json>(reply.body, "options"));
}

void Bus::remove_subscription(std::string_view name) {
  shm::check_name("subscription", name);
  (void)connection_->request({{"op", "subscription_remove"}, {"name", name}});
}

std::string Bus::stat_json() {
  client::Reply reply = connection_->request({{"op", "stat"}});
  const shm::UniqueFd document = reply.take(0);
  reply.no_fork.unlock();
  return read_all(document.get());
}

const std::string& Bus::name() const noexcept { return connection_->name(); }
bool Bus::connected() const noexcept { return connection_->connected(); }

}  // namespace ackring
