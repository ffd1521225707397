// Ctrl-C, and SIGTERM as a batch system sends it, as a question that long work asks now and then.
#pragma once

namespace salient::pipeline {

// Thrown to leave work that was asked to stop; nobody but who asked handles it.
struct Stopped {};

// While one lives, SIGINT and SIGTERM are noted instead of ending the process; a second one ends it as ever. Not for several
// threads, one at a time.
class StopRequest {
 public:
  StopRequest();
  ~StopRequest();
  StopRequest(const StopRequest&) = delete;
  StopRequest& operator=(const StopRequest&) = delete;

  // The signal, 0 = none yet.
  static int signal();
  // Errors: Stopped, once there was one.
  static void check() {
    if (signal() != 0) throw Stopped{};
  }
  // Waits, but not beyond a signal.
  static void sleep(double seconds);
};

// Ends this process by the signal, as if it had never been noted: what its parent expects to see.
void end_by_signal(int signal);

}  // namespace salient::pipeline
