#include "tools/exchange/metrics_server.hpp"

#include <exception>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include <prometheus/collectable.h>
#include <prometheus/exposer.h>

#include "ackring/bus.hpp"
#include "lib/shm/environment.hpp"
#include "tools/common/metrics.hpp"
#include "tools/common/program.hpp"

namespace ackring::tools {

class MetricsServer::Source : public prometheus::Collectable {
 public:
  Source(std::string bus, std::string directory) : name_(std::move(bus)), directory_(std::move(directory)) {}

  [[nodiscard]] std::vector<prometheus::MetricFamily> Collect() const override {
    const std::lock_guard lock(mutex_);
    try {
      if (!bus_) {
        bus_.emplace(Bus::open(name_, {.directory = directory_,
                                       .exchange = ExchangeMode::require,
                                       .client_name = "metrics",
                                       .timeout = std::chrono::seconds(5)}));
      }
      return metric_families(nlohmann::json::parse(bus_->stat_json()), shm::Environment::now_ns());
    } catch (const std::exception&) {
      return no_metrics();  // the exchange is starting, ending or too busy: the next scrape asks again
    }
  }
  /// Lets go of the bus, so that its exchange can end.
  void leave() {
    const std::lock_guard lock(mutex_);
    bus_.reset();
  }

 private:
  const std::string name_;
  const std::string directory_;
  mutable std::mutex mutex_;
  mutable std::optional<Bus> bus_;  // made at the first scrape
};

struct MetricsServer::Http {
  explicit Http(const std::string& endpoint) : exposer(endpoint, 1) {}
  prometheus::Exposer exposer;
};

MetricsServer::MetricsServer(const std::string& endpoint, std::string bus, std::string directory)
    : source_(std::make_shared<Source>(std::move(bus), std::move(directory))) {
  try {
    http_ = std::make_unique<Http>(endpoint);
  } catch (const std::exception& error) {
    throw Failure(status_refused, "metrics: can't listen at " + endpoint + " (" + error.what() +
                                      "): give an address of this machine and a free port with --metrics");
  }
  http_->exposer.RegisterCollectable(source_, "/metrics");
}

MetricsServer::~MetricsServer() {
  http_.reset();  // no scrape is under way any more
  source_->leave();
}

}  // namespace ackring::tools
