// MetricsServer: hands out a bus's metrics over HTTP, at /metrics, to whoever may reach the address.
//
// It is a client of the bus like any other: each scrape is one `stat` request, which the exchange answers between two
// transactions. Scrapes run on the server's threads, one after the other.
#pragma once

#include <memory>
#include <string>

namespace ackring::tools {

class MetricsServer {
 public:
  /// Listens at `endpoint` (address and port) for the bus in `directory`, which need not be served yet. Throws Failure.
  MetricsServer(const std::string& endpoint, std::string bus, std::string directory);
  ~MetricsServer();
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

 private:
  class Source;
  struct Http;
  std::shared_ptr<Source> source_;
  std::unique_ptr<Http> http_;
};

}  // namespace ackring::tools
