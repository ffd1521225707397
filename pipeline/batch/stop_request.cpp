#include "pipeline/batch/stop_request.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <thread>

namespace salient::pipeline {
namespace {

// The only thing that a signal handler may touch.
volatile std::sig_atomic_t noted = 0;

struct sigaction earlier_interrupt;
struct sigaction earlier_termination;

void note(int signal) { noted = signal; }

void install(int signal, struct sigaction* earlier) {
  struct sigaction action {};
  action.sa_handler = note;
  action.sa_flags = static_cast<int>(SA_RESETHAND);  // the second one acts as before
  sigemptyset(&action.sa_mask);
  ::sigaction(signal, &action, earlier);
}

}  // namespace

StopRequest::StopRequest() {
  noted = 0;
  install(SIGINT, &earlier_interrupt);
  install(SIGTERM, &earlier_termination);
}

StopRequest::~StopRequest() {
  ::sigaction(SIGINT, &earlier_interrupt, nullptr);
  ::sigaction(SIGTERM, &earlier_termination, nullptr);
}

int StopRequest::signal() { return noted; }

void StopRequest::sleep(double seconds) {
  constexpr double kStep = 0.1;
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (signal() == 0) {
    const double left = std::chrono::duration<double>(until - std::chrono::steady_clock::now()).count();
    if (left <= 0) return;
    std::this_thread::sleep_for(std::chrono::duration<double>(std::min(left, kStep)));
  }
}

void end_by_signal(int signal) {
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace salient::pipeline
