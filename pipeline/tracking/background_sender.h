// A thread that sends what waits in the outbox while the program does its work, which never waits for a tracker but at its end, and
// there not long.
#pragma once

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <thread>

#include "pipeline/tracking/send.h"

namespace salient::pipeline {

class BackgroundSender {
 public:
  // `store`: its path; the thread opens it for itself.
  explicit BackgroundSender(std::filesystem::path store);
  // Stops at once: a request under way is broken off, and what it was about waits in the outbox.
  ~BackgroundSender();
  BackgroundSender(const BackgroundSender&) = delete;
  BackgroundSender& operator=(const BackgroundSender&) = delete;

  // Something was put. After a failure there are no attempts for kPause, so that a tracker that is away is not asked all the time.
  void wake();

  // One more attempt, at whatever has been put until now. Returns when it has ended, successfully or not, or after `most` (after
  // kShortWait at the latest when the attempt before failed); then what is left waits.
  SendReport finish(std::chrono::milliseconds most);

  static constexpr std::chrono::seconds kPause{30};
  static constexpr std::chrono::milliseconds kShortWait{3000};

 private:
  void work(const std::filesystem::path& path);

  std::mutex mutex_;  // guards all that follows
  std::condition_variable changed_;
  bool wanted_ = false;
  bool hurried_ = false;  // no pause: the end is waiting
  bool stopped_ = false;
  bool idle_ = true;
  TrackingSender* sender_ = nullptr;  // while the thread has one
  SendReport last_;
  std::chrono::steady_clock::time_point not_before_{};
  std::thread thread_;
};

}  // namespace salient::pipeline
