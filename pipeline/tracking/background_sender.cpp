#include "pipeline/tracking/background_sender.h"

#include <algorithm>
#include <utility>

#include "common/error.h"
#include "common/log.h"

namespace salient::pipeline {

BackgroundSender::BackgroundSender(std::filesystem::path store) : thread_([this, path = std::move(store)] { work(path); }) {}

BackgroundSender::~BackgroundSender() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    if (sender_ != nullptr) sender_->cancel();
  }
  changed_.notify_all();
  thread_.join();
}

void BackgroundSender::wake() {
  {
    const std::lock_guard lock(mutex_);
    wanted_ = true;
  }
  changed_.notify_all();
}

SendReport BackgroundSender::finish(std::chrono::milliseconds most) {
  std::unique_lock lock(mutex_);
  wanted_ = true;
  hurried_ = true;
  changed_.notify_all();
  changed_.wait_for(lock, last_.errors.empty() ? most : std::min(most, kShortWait),
                    [&] { return (idle_ && !wanted_) || stopped_; });
  return last_;
}

void BackgroundSender::work(const std::filesystem::path& path) {
  try {
    Store store(path, StoreMode::kExisting);
    TrackingSender sender(store);
    // However it ends: nobody cancels it any more then.
    struct Leave {
      BackgroundSender& self;
      ~Leave() {
        const std::lock_guard hold(self.mutex_);
        self.sender_ = nullptr;
      }
    } const leave{*this};
    std::unique_lock lock(mutex_);
    sender_ = &sender;
    while (!stopped_) {
      const bool may = wanted_ && (hurried_ || std::chrono::steady_clock::now() >= not_before_);
      if (!may) {
        if (wanted_) {
          changed_.wait_until(lock, not_before_);
        } else {
          changed_.wait(lock);
        }
        continue;
      }
      wanted_ = false;
      idle_ = false;
      lock.unlock();
      const SendReport report = sender.send();
      lock.lock();
      last_ = report;
      idle_ = true;
      if (!report.errors.empty()) not_before_ = std::chrono::steady_clock::now() + kPause;
      changed_.notify_all();
    }
  } catch (const std::exception& error) {  // of the store: results are told later
    log_warn("tracking_stopped reason=\"{}\"", error.what());
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    last_.errors.emplace_back(error.what());
    changed_.notify_all();
  }
}

}  // namespace salient::pipeline
