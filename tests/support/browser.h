// Chromium without a window, driven as a user does: pages are opened, clicked and typed into, and what they wrote to the console or
// asked of a network is kept. Speaks the Chrome DevTools Protocol over a pair of pipes (--remote-debugging-pipe: JSON messages,
// each ended by a NUL byte, on the descriptors 3 and 4 of the browser): https://chromedevtools.github.io/devtools-protocol/
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "support/temporary_folder.h"

namespace salient::test {

class Browser {
 public:
  // $SALIENT_CHROMIUM, else chromium, chromium-browser or google-chrome on the PATH; nothing when there is none.
  static std::optional<std::filesystem::path> find();

  // All functions throw std::runtime_error when the browser ends, reports an error or does not answer within 30 s.
  explicit Browser(const std::filesystem::path& program);
  ~Browser();
  Browser(const Browser&) = delete;
  Browser& operator=(const Browser&) = delete;

  // In CSS pixels; the next functions see the page laid out for it.
  void set_viewport(int width, int height, bool phone = false);
  // What prefers-color-scheme says: "light" or "dark".
  void set_color_scheme(const std::string& scheme);
  void set_print_media(bool print);

  // Until the page has loaded.
  void open(const std::filesystem::path& file);
  // The value of a JavaScript expression, as JSON.
  Json evaluate(const std::string& expression);
  // Until the expression is true; false after 10 s.
  bool wait_until(const std::string& expression);

  // In the middle of the first element of a selector, which is scrolled into view. Fails where something else lies above it.
  void click(const std::string& selector);
  // Into what has the focus.
  void type(const std::string& text);
  // "Tab", "Enter", " ".
  void press(const std::string& key);

  std::string screenshot();  // PNG

  // Of all pages since the start: errors and warnings of the console and uncaught exceptions; addresses that were asked for, but
  // for the opened files.
  const std::vector<std::string>& complaints() const { return complaints_; }
  const std::vector<std::string>& requests() const { return requests_; }

 private:
  Json call(const std::string& method, const Json& parameters = Json::object());
  void send(const Json& message);
  Json receive(std::chrono::steady_clock::time_point until);
  void note(const Json& event);

  TemporaryFolder profile_;
  pid_t child_ = -1;
  int to_ = -1;
  int from_ = -1;
  std::string buffer_;
  std::string session_;
  int64_t last_id_ = 0;
  int64_t loads_ = 0;
  std::string opened_;
  std::vector<std::string> complaints_;
  std::vector<std::string> requests_;
};

}  // namespace salient::test
