// A command was killed, and a file of what it left was changed before it is given again: by a bad disk, or by somebody. It must
// notice, and either do that work again or say what is wrong; other bytes than those of an undisturbed call must never come out of
// it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/program_errors.h"
#include "support/small_demo.h"
#include "support/temporary_folder.h"

namespace salient::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

// What is done to the bytes of a file.
struct Damage {
  const char* name;
  std::function<void(std::string& bytes)> apply;
};
void flip(std::string& bytes, size_t at) {
  if (!bytes.empty()) bytes[at] = static_cast<char>(bytes[at] ^ 0x04);
}
const std::vector<Damage> kDamages = {
    {"first byte", [](std::string& bytes) { flip(bytes, 0); }},
    {"a third in", [](std::string& bytes) { flip(bytes, bytes.size() / 3); }},
    {"two thirds in", [](std::string& bytes) { flip(bytes, bytes.size() * 2 / 3); }},
    {"cut in half", [](std::string& bytes) { bytes.resize(bytes.size() / 2); }},
    {"zeros at the end",
     [](std::string& bytes) { std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(bytes.size() / 2), bytes.end(), '\0'); }},
};

class DamagedWork : public testing::Test {
 protected:
  DamagedWork() { write_small_demo(inputs()); }

  fs::path inputs() const { return folder_.path() / "inputs"; }
  fs::path work() const { return folder_.path() / "work"; }

  // `words` killed after the first block of the artifact `output`, then with each file that this left damaged. `prepare` makes what
  // the command needs in its folder. `results`: the folder with what is compared.
  void try_all(const std::vector<std::string>& words, const fs::path& output, const std::function<void(const fs::path&)>& prepare) {
    const fs::path whole = folder_.path() / "whole";
    fs::create_directories(whole);
    prepare(whole);
    ASSERT_EQ(run_program(words, whole).exit_code, 0);
    const auto expected = folder_bytes(whole / output);

    fs::create_directories(work());
    prepare(work());
    const fs::path progress = work() / (output.string() + ".partial") / "progress.json";
    const ProgramResult killed =
        run_program(ProgramCall{words, work(), {}, [&](const std::string&) {
                                  return file_bytes(progress).find("\"blocks_done\":1") != std::string::npos;
                                }});
    ASSERT_TRUE(killed.killed) << killed.err;
    const fs::path kept = folder_.path() / "kept";
    fs::copy(work(), kept, fs::copy_options::recursive);

    int damaged = 0;
    int refused = 0;
    for (const auto& [name, bytes] : folder_bytes(kept)) {
      if (name.ends_with(".yaml") || name.find(".db") != std::string::npos) continue;
      for (const Damage& damage : kDamages) {
        std::string changed = bytes;
        damage.apply(changed);
        if (changed == bytes) continue;
        SCOPED_TRACE(name + ": " + damage.name);
        fs::remove_all(work());
        fs::copy(kept, work(), fs::copy_options::recursive);
        write_text(work() / name, changed);
        const ProgramResult result = run_program(words, work());
        ++damaged;
        if (result.exit_code == 0) {
          const auto found = folder_bytes(work() / output);
          ASSERT_EQ(names_of(found), names_of(expected));
          for (const auto& [file, content] : expected)
            EXPECT_TRUE(found.at(file) == content) << file << " has other bytes\n" << result.err;
        } else {
          ++refused;
          expect_error(result, kCorruption, {"hint: remove that folder"});
          EXPECT_FALSE(fs::exists(work() / output));
        }
      }
    }
    EXPECT_GE(damaged, 15);
    EXPECT_LT(refused, damaged / 2) << "most damage costs time and nothing else";
    std::printf("%d files damaged, %d of them refused\n", damaged, refused);
  }

  TemporaryFolder folder_;
};

TEST_F(DamagedWork, OfAQuantization) {
  try_all({"quantize",
           "--model",
           (inputs() / "model").string(),
           "--calib",
           (inputs() / "data/calibration.jsonl").string(),
           "--out",
           "out",
           "--group-size",
           "32",
           "--n-grid",
           "2",
           "--no-refine",
           "--self-generated",
           "0",
           "--target-bits",
           "5",
           "--format",
           "compressed-tensors",
           "--save-search",
           "found.search",
           "--threads",
           "1"},
          "out", [](const fs::path&) {});
}

// What the command reads is away, or another, when it is given again.
TEST_F(DamagedWork, SourcesThatVanishOrChange) {
  const std::vector<std::string> words = {
      "quantize", "--model",  "model", "--calib",     "calibration.jsonl", "--out", "out",       "--group-size",
      "32",       "--n-grid", "2",     "--no-refine", "--self-generated",  "0",     "--threads", "1"};
  const auto prepare = [&](const fs::path& folder) {
    fs::remove_all(folder);
    fs::create_directories(folder);
    fs::copy(inputs() / "model", folder / "model");
    fs::copy_file(inputs() / "data/calibration.jsonl", folder / "calibration.jsonl");
  };
  const fs::path whole = folder_.path() / "whole";
  for (const char* name : {"model/model.safetensors", "model/config.json", "calibration.jsonl"}) {
    SCOPED_TRACE(name);
    prepare(whole);
    ASSERT_EQ(run_program(words, whole).exit_code, 0);
    prepare(work());
    const fs::path progress = work() / "out.partial/progress.json";
    const ProgramResult killed =
        run_program(ProgramCall{words, work(), {}, [&](const std::string&) {
                                  return file_bytes(progress).find("\"blocks_done\":1") != std::string::npos;
                                }});
    ASSERT_TRUE(killed.killed) << killed.err;

    fs::rename(work() / name, work() / "away");
    expect_error(run_program(words, work()), kNotFound, {"not found: "});
    fs::rename(work() / "away", work() / name);
    fs::copy(work(), folder_.path() / "kept", fs::copy_options::recursive);
    const ProgramResult resumed = run_program(words, work());
    ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
    EXPECT_THAT(resumed.err, HasSubstr("going on at block"));
    EXPECT_TRUE(folder_bytes(work() / "out") == folder_bytes(whole / "out"));

    // Another one in its place: nothing of the work before may get into what is made of it.
    fs::remove_all(work());
    fs::rename(folder_.path() / "kept", work());
    for (const fs::path& folder : {work(), whole}) {
      std::string bytes = file_bytes(folder / name);
      if (name == std::string("model/model.safetensors")) {
        bytes[bytes.size() - 4] = static_cast<char>(bytes[bytes.size() - 4] ^ 0x40);
      } else if (name == std::string("model/config.json")) {
        bytes.replace(bytes.find("1e-06"), 5, "2e-06");
      } else {
        bytes = bytes.substr(bytes.find('\n') + 1);
      }
      write_text(folder / name, bytes);
    }
    fs::remove_all(whole / "out");
    const ProgramResult changed = run_program(words, work());
    ASSERT_EQ(changed.exit_code, 0) << changed.err;
    EXPECT_EQ(changed.err.find("going on at block"), std::string::npos) << changed.err;
    ASSERT_EQ(run_program(words, whole).exit_code, 0);
    EXPECT_TRUE(folder_bytes(work() / "out") == folder_bytes(whole / "out"));
  }
}

// With rows that the model writes itself, kept beside the store, and the calibration file of the stage before.
TEST_F(DamagedWork, OfARun) {
  const std::string config = small_demo_config(inputs());
  try_all({"run", "run.yaml", "--set", "quantization.self_generated=0.2", "--set", "evaluation.tasks=[]"},
          "artifacts/Small-maths_SFT_NoPeft_AWQ_w4_g32_headfp16_quantized",
          [&](const fs::path& folder) { write_text(folder / "run.yaml", config); });
}

}  // namespace
}  // namespace salient::test
