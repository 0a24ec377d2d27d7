// What the exchange tells the service manager that started it (systemd), by the protocol of sd_notify(3).
#pragma once

#include <string_view>

namespace ackring::tools {

/// Sends lines such as "READY=1\n" to the socket that $NOTIFY_SOCKET names. Without one: nothing. Any thread.
void notify_service_manager(std::string_view state);

/// Says that settings are being read again; READY=1 ends that.
void notify_reloading();

}  // namespace ackring::tools
