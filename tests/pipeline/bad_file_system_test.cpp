// A file system that refuses, and files that are in the way: one clear error, the exit code of its kind, and no work is lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <cerrno>
#include <cstring>

#include "support/broken_model.h"

namespace salient::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

TEST(BadFileSystem, StoreThatIsNoDatabase) {
  const TemporaryFolder folder;
  fs::create_directories(folder.path() / "runs");
  write_text(folder.path() / "runs/salient.db", std::string(8192, 'x'));
  expect_error(run_program({"runs"}, folder.path()), kCorruption, {"runs/salient.db", "STORE_CORRUPT"});
  EXPECT_EQ(file_bytes(folder.path() / "runs/salient.db"), std::string(8192, 'x'));
}

// A file system of `size`, mounted for the life of the object; not there without the right to mount.
class SmallDisk {
 public:
  SmallDisk(const fs::path& path, const std::string& options) : path_(path) {
    fs::create_directories(path);
    mounted_ = ::mount("tmpfs", path.c_str(), "tmpfs", 0, options.c_str()) == 0;
    if (!mounted_) reason_ = std::strerror(errno);
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(path_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }
  const std::string& reason() const { return reason_; }
  void remount_read_only() const { EXPECT_EQ(::mount("tmpfs", path_.c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, nullptr), 0); }

 private:
  fs::path path_;
  bool mounted_ = false;
  std::string reason_;
};

TEST(BadFileSystem, DiskTooSmallIsToldBeforeTheWork) {
  const TemporaryFolder folder;
  const SmallDisk disk(folder.path() / "disk", "size=2m");
  if (!disk.mounted()) GTEST_SKIP() << "cannot mount a tmpfs here: " << disk.reason();
  write_calibration(folder.path());
  const ProgramResult result =
      run_program({"quantize", "--model", kDemoModel.string(), "--calib", "calibration.jsonl", "--out", "disk/out"}, folder.path());
  expect_error(result, kIo, {"DISK_FULL", "disk/out", "need", "2.0 MiB"});
  EXPECT_TRUE(fs::is_empty(folder.path() / "disk"));
}

// Something else fills the disk while the job is at work: the work is kept and goes on when there is room.
TEST(BadFileSystem, DiskThatFillsUpLosesNothing) {
  const TemporaryFolder folder;
  const SmallDisk disk(folder.path() / "disk", "size=24m");
  if (!disk.mounted()) GTEST_SKIP() << "cannot mount a tmpfs here: " << disk.reason();
  write_calibration(folder.path());
  const std::vector<std::string> words = {"quantize", "--model", kDemoModel.string(), "--calib", "calibration.jsonl",
                                          "--n-grid", "4",       "--max-shard-size",  "500KB",   "--out",
                                          "disk/out"};
  const fs::path progress = folder.path() / "disk/out.partial/progress.json";
  const fs::path ballast = folder.path() / "disk/ballast";
  bool filled = false;
  ProgramCall call{words, folder.path(), {}, [&](const std::string&) {
                     if (filled || file_bytes(progress).find("\"blocks_done\":1") == std::string::npos) return false;
                     std::ofstream out(ballast, std::ios::binary);
                     const std::string block(4096, 'x');
                     while (out.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
                     }
                     filled = true;
                     return false;
                   }};
  const ProgramResult result = run_program(call);
  ASSERT_TRUE(filled) << result.err;
  expect_error(result, kIo, {"DISK_FULL", "disk/out.partial"});
  EXPECT_FALSE(fs::exists(folder.path() / "disk/out"));

  fs::remove(ballast);
  const ProgramResult resumed = run_program(words, folder.path());
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_THAT(resumed.err, HasSubstr("going on at block"));
  std::vector<std::string> elsewhere = words;
  elsewhere.back() = "whole";
  ASSERT_EQ(run_program(elsewhere, folder.path()).exit_code, 0);
  EXPECT_TRUE(folder_bytes(folder.path() / "disk/out") == folder_bytes(folder.path() / "whole"));
}

TEST(BadFileSystem, ReadOnlyOutput) {
  const TemporaryFolder folder;
  const SmallDisk disk(folder.path() / "disk", "size=32m");
  if (!disk.mounted()) GTEST_SKIP() << "cannot mount a tmpfs here: " << disk.reason();
  disk.remount_read_only();
  write_calibration(folder.path());
  const ProgramResult quantized =
      run_program({"quantize", "--model", kDemoModel.string(), "--calib", "calibration.jsonl", "--out", "disk/out"}, folder.path());
  expect_error(quantized, kIo, {"disk/out", "Read-only file system"});
  EXPECT_THAT(quantized.err, Not(HasSubstr("generate"))) << "rows were made before it was told";
  expect_error(run_program({"calibrate", "--model", kDemoModel.string(), "--data",
                            (kDemoModel / "data/openmath_train.jsonl").string(), "--samples", "12", "--out", "disk/calib"},
                           folder.path()),
               kIo, {"disk/calib", "Read-only file system"});
  expect_error(run_program({"logits", "--model", kDemoModel.string(), "--ids", "1", "--out", "disk/x.npy"}, folder.path()), kIo,
               {"disk/", "x.npy", "Read-only file system"});
}

// Result files that cannot be written are told before the work whose results they would hold.
TEST(BadFileSystem, ResultFilesThatCannotBeWritten) {
  const TemporaryFolder folder;
  write_text(folder.path() / "file", "x");
  fs::create_directories(folder.path() / "folder.json");
  const std::string arc = "arc=" + (kDemoModel / "data/arc_test.jsonl").string();
  const auto evaluate = [&](const std::string& output) {
    return run_program({"eval", kDemoModel.string(), "--tasks", "arc", "--data", arc, "--limit", "4", "--store", "eval.db",
                        "--output-path", output},
                       folder.path());
  };
  expect_error(evaluate("file/results"), kIo, {"file/results: results cannot be written there", "hint:"});
  expect_error(evaluate("folder.json"), kInvalidArgument, {"folder.json", "it is a folder"});
  EXPECT_FALSE(fs::exists(folder.path() / "eval.db")) << "the evaluation was begun";

  write_demo_config(folder.path());
  const ProgramResult run = run_program({"run", "run.yaml", "--set", "evaluation.output_path=file/results"}, folder.path());
  expect_error(run, kIo, {"evaluation.output_path", "file/results"});
  EXPECT_FALSE(fs::exists(folder.path() / "artifacts"));
}

TEST(BadFileSystem, OutputBelowAFile) {
  const BrokenModel model;
  write_text(model.folder() / "file", "x");
  expect_error(run_program({"quantize", "--model", "model", "--calib", "calibration.jsonl", "--out", "file/out"}, model.folder()),
               kIo, {"file/out"});
}

}  // namespace
}  // namespace salient::test
