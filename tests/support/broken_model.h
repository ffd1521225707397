// A copy of the demo model, to be broken.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "common/json.h"
#include "support/demo_run.h"
#include "support/program_errors.h"
#include "support/temporary_folder.h"

namespace salient::test {

// The demo model without its data, to be broken.
class BrokenModel {
 public:
  BrokenModel() {
    std::filesystem::create_directories(path());
    for (const auto& entry : std::filesystem::directory_iterator(kDemoModel)) {
      if (entry.is_regular_file()) std::filesystem::copy_file(entry.path(), path() / entry.path().filename());
    }
    write_calibration(folder_.path());
  }

  const std::filesystem::path& folder() const { return folder_.path(); }
  std::filesystem::path path() const { return folder_.path() / "model"; }
  std::filesystem::path output() const { return folder_.path() / "out"; }

  std::string read(const std::string& name) const { return file_bytes(path() / name); }
  void write(const std::string& name, const std::string& bytes) const { write_text(path() / name, bytes); }
  // Exactly one place must hold `before`.
  void replace(const std::string& name, const std::string& before, const std::string& after) const {
    std::string text = read(name);
    const size_t at = text.find(before);
    ASSERT_NE(at, std::string::npos) << before;
    ASSERT_EQ(text.find(before, at + 1), std::string::npos) << before;
    write(name, text.replace(at, before.size(), after));
  }

  // Changes the header of model.safetensors; the data stay as they are.
  void edit_header(const std::function<void(Json& header)>& edit) const {
    const std::string bytes = read("model.safetensors");
    uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof(length));
    Json header = parse_json(bytes.substr(8, length), "header");
    edit(header);
    std::string text = dump_json(header);
    while (text.size() % 8 != 0) text += ' ';
    const uint64_t new_length = text.size();
    write("model.safetensors", std::string(reinterpret_cast<const char*>(&new_length), 8) + text + bytes.substr(8 + length));
  }

  // Overwrites one bfloat16 of a tensor.
  void set_value(const std::string& tensor, uint64_t index, uint16_t value) const {
    std::string bytes = read("model.safetensors");
    uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof(length));
    const Json header = parse_json(bytes.substr(8, length), "header");
    const uint64_t begin = header.at(tensor).at("data_offsets").at(0).get<uint64_t>();
    std::memcpy(bytes.data() + 8 + length + begin + 2 * index, &value, sizeof(value));
    write("model.safetensors", bytes);
  }

  ProgramResult quantize(std::vector<std::string> more = {}) const {
    std::vector<std::string> words = {"quantize", "--model", "model",    "--calib", "calibration.jsonl",
                                      "--out",    "out",     "--n-grid", "2"};
    words.insert(words.end(), more.begin(), more.end());
    return run_program(words, folder());
  }

  void expect_quantize_error(int exit_code, const std::vector<std::string>& texts,
                             const std::vector<std::string>& more = {}) const {
    expect_error(quantize(more), exit_code, texts);
    EXPECT_FALSE(std::filesystem::exists(output())) << "something is at the place of the result";
  }

 private:
  TemporaryFolder folder_;
};

}  // namespace salient::test
