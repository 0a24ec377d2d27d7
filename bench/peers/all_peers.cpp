// Which peers there are: those whose libraries the build has found (meson.build defines PEERS_WITH_…).
#include "bench/peers/peer.hpp"

namespace ackring::peers {

Peers all_peers(const Programs& programs) {
  Peers peers;
  add_ackring(peers, programs);
#ifdef PEERS_WITH_ICEORYX
  add_iceoryx(peers);
#endif
  add_boost_message_queue(peers);
  add_posix_message_queue(peers);
  add_unix_socket(peers);
#ifdef PEERS_WITH_ZEROMQ
  add_zeromq(peers);
#endif
#ifdef PEERS_WITH_NNG
  add_nng(peers);
#endif
#ifdef PEERS_WITH_REDIS
  add_redis(peers);
#endif
#ifdef PEERS_WITH_JETSTREAM
  add_jetstream(peers);
#endif
#ifdef PEERS_WITH_RABBITMQ
  add_rabbitmq(peers);
#endif
  return peers;
}

}  // namespace ackring::peers
