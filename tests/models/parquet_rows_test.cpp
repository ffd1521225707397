#include "models/text/parquet_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "common/file.h"
#include "common/hash.h"
#include "models/text/dataset.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using testing::HasSubstr;

const fs::path kData = fs::path(SALIENT_SOURCE_DIR) / "tests/data/parquet";  // scripts/goldens/parquet_rows.py

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text.data(), text.size())); }

// Floats that JSON has no numbers for, as the golden files spell them.
Json spelled(const Json& value) {
  if (value.is_number_float() && !std::isfinite(value.get<double>())) {
    const double number = value.get<double>();
    return Json::object({{"float", std::isnan(number) ? "nan" : number < 0 ? "-inf" : "inf"}});
  }
  if (!value.is_structured()) return value;
  Json out = value;
  for (Json& part : out) part = spelled(part);
  return out;
}

class ParquetRowsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!reads_parquet()) GTEST_SKIP() << "built without Apache Arrow";
  }
  test::TemporaryFolder folder_;
};

TEST_F(ParquetRowsTest, EveryTypeIsWhatPyarrowReads) {
  for (const char* name : {"types", "plain"}) {
    const Dataset data = read_dataset(kData / (std::string(name) + ".parquet"));
    const Dataset wanted = read_dataset(kData / (std::string(name) + ".jsonl"));
    EXPECT_EQ(data.format, "parquet");
    ASSERT_EQ(data.rows.size(), wanted.rows.size());
    for (size_t i = 0; i < wanted.rows.size(); ++i) {
      ASSERT_EQ(data.rows[i].size(), wanted.rows[i].size()) << name << " " << i;
      for (const auto& [column, value] : wanted.rows[i].items())
        EXPECT_EQ(spelled(data.rows[i].at(column)), value) << name << " " << i << " " << column;
      EXPECT_EQ(data.line_numbers[i], static_cast<int64_t>(i) + 1);
    }
    EXPECT_EQ(data.sha256, sha256_hex(read_text_file(data.path)));
  }
}

TEST_F(ParquetRowsTest, ManyRowsComeInOrderOverBatchesAndRowGroups) {
  const Dataset data = read_dataset(kData / "many.parquet");
  ASSERT_EQ(data.rows.size(), 10'000u);
  for (size_t i = 0; i < data.rows.size(); ++i) ASSERT_EQ(data.rows[i]["i"], i);
  const Dataset wanted = read_dataset(kData / "many.jsonl");
  for (const Json& entry : wanted.rows) EXPECT_EQ(data.rows[entry["place"].get<size_t>()], entry["row"]);
}

TEST_F(ParquetRowsTest, TheBytesTellWhateverTheExtension) {
  write_file(folder_.path() / "renamed.jsonl", read_text_file(kData / "plain.parquet"));
  EXPECT_EQ(read_dataset(folder_.path() / "renamed.jsonl").rows.size(), 3u);
}

TEST_F(ParquetRowsTest, OtherFilesOfThatNameAreRefusedByName) {
  for (const std::string text : {"", "not really", "PAR1", "PAR1....PAR1", "PAR1\x10\x00\x00\x00PAR1"}) {
    write_file(folder_.path() / "a.parquet", text);
    const Error error = error_of([&] { read_dataset(folder_.path() / "a.parquet"); }, ErrorKind::kCorruption);
    EXPECT_THAT(error.message(), HasSubstr((folder_.path() / "a.parquet").string() + ": Parquet: "));
  }
}

// Whatever is cut off or changed, the file is refused or read; nothing else comes out of the library.
TEST_F(ParquetRowsTest, DamagedFilesAreErrors) {
  const auto read = [](const std::string& text) {
    size_t rows = 0;
    read_parquet_rows(bytes_of(text), "damaged", [&](const Json& row) { rows += row.empty() ? 0 : 1; });
    return rows;
  };
  for (const char* name : {"types.parquet", "many.parquet"}) {
    const std::string whole = read_text_file(kData / name);
    ASSERT_GT(read(whole), 0u);
    for (size_t kept = 0; kept < whole.size(); kept += whole.size() / 40)
      error_of([&] { read(whole.substr(0, kept)); }, ErrorKind::kCorruption);
    int64_t refused = 0;
    const size_t step = whole.size() / 300 + 1;
    for (size_t at = 4; at < whole.size(); at += step) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ (at % 2 == 0 ? 0xFF : 0x10));
      try {
        read(damaged);
      } catch (const Error& error) {
        EXPECT_THAT(error.message(), HasSubstr("damaged: Parquet: "));
        ++refused;
      }
    }
    EXPECT_GT(refused, 10);
  }
}

// 40 million rows of one word, in a file of about a kilobyte.
TEST_F(ParquetRowsTest, RunsThatUnfoldWithoutEndAreRefused) {
  const std::string text = read_text_file(kData / "runs.parquet");
  ASSERT_LT(text.size(), 10'000u);
  const Error error =
      error_of([&] { read_parquet_rows(bytes_of(text), "runs", [](const Json&) { FAIL() << "a row"; }); }, ErrorKind::kUnsupported);
  EXPECT_THAT(error.message(), HasSubstr("runs: Parquet: found 80000000 values in "));
}

TEST(ParquetRows, ABuildWithoutArrowSaysWhatToDo) {
  if (reads_parquet()) GTEST_SKIP() << "built with Apache Arrow";
  const Error error = error_of([] { read_dataset(kData / "plain.parquet"); }, ErrorKind::kUnsupported);
  EXPECT_THAT(error.message(), HasSubstr("plain.parquet"));
  EXPECT_THAT(error.hint(), testing::AllOf(HasSubstr("pyarrow"), HasSubstr("to_json")));
}

}  // namespace
}  // namespace salient::models
