#include "models/text/parquet_rows.h"

#include <arrow/api.h>
#include <arrow/io/memory.h>
#include <arrow/util/float16.h>
#include <parquet/arrow/reader.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>

#include "common/error.h"

namespace salient::models {
namespace {

constexpr int64_t kBatchBytes = int64_t{16} << 20;
constexpr int64_t kMostBatchRows = 4096;
constexpr int64_t kDaySeconds = 86'400;

void check(const arrow::Status& status, const std::string& where) {
  if (status.ok()) return;
  fail(status.IsNotImplemented() ? ErrorKind::kUnsupported : ErrorKind::kCorruption, "{}: Parquet: {}", where, status.message());
}

template <typename T>
T checked(arrow::Result<T> result, const std::string& where) {
  check(result.status(), where);
  return std::move(result).MoveValueUnsafe();
}

// The quotient rounded down, and what is left, which is not negative.
std::pair<int64_t, int64_t> divide(int64_t value, int64_t divisor) {
  const int64_t rest = value % divisor;
  return rest < 0 ? std::pair{value / divisor - 1, rest + divisor} : std::pair{value / divisor, rest};
}

int64_t units_per_second(arrow::TimeUnit::type unit) {
  switch (unit) {
    case arrow::TimeUnit::SECOND: return 1;
    case arrow::TimeUnit::MILLI: return 1'000;
    case arrow::TimeUnit::MICRO: return 1'000'000;
    case arrow::TimeUnit::NANO: return 1'000'000'000;
  }
  return 1;
}

// Nothing, microseconds, or nanoseconds where these are not enough: as Python and pandas print them.
std::string fraction_text(int64_t units, int64_t per_second) {
  const int64_t nanoseconds = units * (1'000'000'000 / per_second);
  if (nanoseconds == 0) return "";
  return nanoseconds % 1000 == 0 ? fmt::format(".{:06}", nanoseconds / 1000) : fmt::format(".{:09}", nanoseconds);
}

std::string clock_text(int64_t seconds) {
  return fmt::format("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
}

std::string date_text(int64_t days) {
  const std::chrono::year_month_day date{std::chrono::sys_days{std::chrono::days{days}}};
  return fmt::format("{:04}-{:02}-{:02}", static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                     static_cast<unsigned>(date.day()));
}

std::string time_text(int64_t value, arrow::TimeUnit::type unit) {
  const int64_t per_second = units_per_second(unit);
  const auto [seconds, units] = divide(value, per_second);
  return clock_text(seconds) + fraction_text(units, per_second);
}

// Seconds east of UTC of "+05:30"; 0 for names.
int64_t fixed_offset(const std::string& zone) {
  const auto digit = [&](size_t i) { return static_cast<int64_t>(zone[i] - '0'); };
  const bool fixed = zone.size() == 6 && (zone[0] == '+' || zone[0] == '-') && zone[3] == ':' &&
                     zone.find_first_not_of("0123456789", 1) == 3 && zone.find_first_not_of("0123456789", 4) == std::string::npos;
  if (!fixed) return 0;
  const int64_t seconds = (digit(1) * 10 + digit(2)) * 3600 + (digit(4) * 10 + digit(5)) * 60;
  return zone[0] == '-' ? -seconds : seconds;
}

std::string timestamp_text(int64_t value, const arrow::TimestampType& type) {
  const int64_t per_second = units_per_second(type.unit());
  const auto [utc, units] = divide(value, per_second);
  const int64_t offset = fixed_offset(type.timezone());
  auto [days, seconds] = divide(utc, kDaySeconds);
  const auto [carried, local] = divide(seconds + offset, kDaySeconds);
  std::string text = date_text(days + carried) + " " + clock_text(local) + fraction_text(units, per_second);
  if (type.timezone().empty()) return text;
  return text + fmt::format("{}{:02}:{:02}", offset < 0 ? '-' : '+', std::abs(offset) / 3600, std::abs(offset) / 60 % 60);
}

std::string duration_text(int64_t value, arrow::TimeUnit::type unit) {
  const int64_t per_second = units_per_second(unit);
  const auto [all_seconds, units] = divide(value, per_second);
  const auto [days, seconds] = divide(all_seconds, kDaySeconds);
  const std::string before = days == 0 ? "" : fmt::format("{} day{}, ", days, std::abs(days) == 1 ? "" : "s");
  return before + fmt::format("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60) + fraction_text(units, per_second);
}

Json value_at(const arrow::Array& array, int64_t i, const std::string& where);

template <typename ArrayType>
Json number(const arrow::Array& array, int64_t i) {
  return static_cast<const ArrayType&>(array).Value(i);
}

template <typename ArrayType>
Json text(const arrow::Array& array, int64_t i) {
  return std::string(static_cast<const ArrayType&>(array).GetView(i));
}

template <typename ArrayType>
Json formatted(const arrow::Array& array, int64_t i) {
  return static_cast<const ArrayType&>(array).FormatValue(i);
}

template <typename ArrayType>
Json list(const arrow::Array& array, int64_t i, const std::string& where) {
  const auto& lists = static_cast<const ArrayType&>(array);
  const int64_t begin = lists.value_offset(i);
  const int64_t length = lists.value_length(i);
  Json out = Json::array();
  for (int64_t k = 0; k < length; ++k) out.push_back(value_at(*lists.values(), begin + k, where));
  return out;
}

Json map(const arrow::MapArray& maps, int64_t i, const std::string& where) {
  Json out = Json::array();
  for (int64_t k = maps.value_offset(i); k < maps.value_offset(i) + maps.value_length(i); ++k)
    out.push_back(Json::array({value_at(*maps.keys(), k, where), value_at(*maps.items(), k, where)}));
  return out;
}

Json object(const arrow::StructArray& structs, int64_t i, const std::string& where) {
  Json out = Json::object();
  for (int k = 0; k < structs.num_fields(); ++k)
    out[structs.struct_type()->field(k)->name()] = value_at(*structs.field(k), i, where);
  return out;
}

Json value_at(const arrow::Array& array, int64_t i, const std::string& where) {
  if (array.IsNull(i)) return nullptr;
  switch (array.type_id()) {
    case arrow::Type::NA: return nullptr;
    case arrow::Type::BOOL: return number<arrow::BooleanArray>(array, i);
    case arrow::Type::INT8: return number<arrow::Int8Array>(array, i);
    case arrow::Type::INT16: return number<arrow::Int16Array>(array, i);
    case arrow::Type::INT32: return number<arrow::Int32Array>(array, i);
    case arrow::Type::INT64: return number<arrow::Int64Array>(array, i);
    case arrow::Type::UINT8: return number<arrow::UInt8Array>(array, i);
    case arrow::Type::UINT16: return number<arrow::UInt16Array>(array, i);
    case arrow::Type::UINT32: return number<arrow::UInt32Array>(array, i);
    case arrow::Type::UINT64: return number<arrow::UInt64Array>(array, i);
    case arrow::Type::HALF_FLOAT:
      return arrow::util::Float16::FromBits(static_cast<const arrow::HalfFloatArray&>(array).Value(i)).ToDouble();
    case arrow::Type::FLOAT: return static_cast<double>(static_cast<const arrow::FloatArray&>(array).Value(i));
    case arrow::Type::DOUBLE: return number<arrow::DoubleArray>(array, i);
    case arrow::Type::STRING: return text<arrow::StringArray>(array, i);
    case arrow::Type::LARGE_STRING: return text<arrow::LargeStringArray>(array, i);
    case arrow::Type::STRING_VIEW: return text<arrow::StringViewArray>(array, i);
    case arrow::Type::BINARY: return text<arrow::BinaryArray>(array, i);
    case arrow::Type::LARGE_BINARY: return text<arrow::LargeBinaryArray>(array, i);
    case arrow::Type::BINARY_VIEW: return text<arrow::BinaryViewArray>(array, i);
    case arrow::Type::FIXED_SIZE_BINARY: return text<arrow::FixedSizeBinaryArray>(array, i);
    case arrow::Type::DECIMAL32: return formatted<arrow::Decimal32Array>(array, i);
    case arrow::Type::DECIMAL64: return formatted<arrow::Decimal64Array>(array, i);
    case arrow::Type::DECIMAL128: return formatted<arrow::Decimal128Array>(array, i);
    case arrow::Type::DECIMAL256: return formatted<arrow::Decimal256Array>(array, i);
    case arrow::Type::DATE32: return date_text(static_cast<const arrow::Date32Array&>(array).Value(i));
    case arrow::Type::DATE64:
      return date_text(divide(static_cast<const arrow::Date64Array&>(array).Value(i), kDaySeconds * 1000).first);
    case arrow::Type::TIME32:
      return time_text(static_cast<const arrow::Time32Array&>(array).Value(i),
                       static_cast<const arrow::Time32Type&>(*array.type()).unit());
    case arrow::Type::TIME64:
      return time_text(static_cast<const arrow::Time64Array&>(array).Value(i),
                       static_cast<const arrow::Time64Type&>(*array.type()).unit());
    case arrow::Type::TIMESTAMP:
      return timestamp_text(static_cast<const arrow::TimestampArray&>(array).Value(i),
                            static_cast<const arrow::TimestampType&>(*array.type()));
    case arrow::Type::DURATION:
      return duration_text(static_cast<const arrow::DurationArray&>(array).Value(i),
                           static_cast<const arrow::DurationType&>(*array.type()).unit());
    case arrow::Type::LIST: return list<arrow::ListArray>(array, i, where);
    case arrow::Type::LARGE_LIST: return list<arrow::LargeListArray>(array, i, where);
    case arrow::Type::FIXED_SIZE_LIST: return list<arrow::FixedSizeListArray>(array, i, where);
    case arrow::Type::LIST_VIEW: return list<arrow::ListViewArray>(array, i, where);
    case arrow::Type::LARGE_LIST_VIEW: return list<arrow::LargeListViewArray>(array, i, where);
    case arrow::Type::MAP: return map(static_cast<const arrow::MapArray&>(array), i, where);
    case arrow::Type::STRUCT: return object(static_cast<const arrow::StructArray&>(array), i, where);
    case arrow::Type::DICTIONARY: {
      const auto& indices = static_cast<const arrow::DictionaryArray&>(array);
      return value_at(*indices.dictionary(), indices.GetValueIndex(i), where);
    }
    case arrow::Type::EXTENSION: return value_at(*static_cast<const arrow::ExtensionArray&>(array).storage(), i, where);
    default: fail(ErrorKind::kUnsupported, "{}: Parquet: columns of type {} are not read here", where, array.type()->ToString());
  }
}

void check_names(const arrow::Schema& schema, const std::string& where) {
  std::set<std::string> seen;
  for (const std::string& name : schema.field_names()) {
    if (!seen.insert(name).second) fail(ErrorKind::kCorruption, "{}: Parquet: the column '{}' is there twice", where, name);
  }
}

// Runs of one value take no room in a file, but as rows they do.
void check_expansion(const parquet::FileMetaData& metadata, size_t file_bytes, const std::string& where) {
  constexpr uint64_t kAlways = uint64_t{1} << 24;
  constexpr uint64_t kOfAByte = 64;
  const uint64_t most = std::max(kAlways, kOfAByte * file_bytes);
  uint64_t values = 0;
  for (int group = 0; group < metadata.num_row_groups(); ++group) {
    const auto columns = metadata.RowGroup(group);
    values += static_cast<uint64_t>(std::max<int64_t>(columns->num_rows(), 0));
    for (int column = 0; column < columns->num_columns(); ++column)
      values += static_cast<uint64_t>(std::max<int64_t>(columns->ColumnChunk(column)->num_values(), 0));
  }
  if (values > most)
    fail(ErrorKind::kUnsupported, "{}: Parquet: found {} values in {} bytes, expected at most {}", where, values, file_bytes, most);
}

// Rows of a batch, so that it takes about kBatchBytes.
int64_t batch_rows(const parquet::FileMetaData& metadata) {
  int64_t bytes = 0;
  for (int i = 0; i < metadata.num_row_groups(); ++i) bytes += std::max<int64_t>(metadata.RowGroup(i)->total_byte_size(), 0);
  const int64_t of_a_row = std::max<int64_t>(bytes / std::max<int64_t>(metadata.num_rows(), 1), 1);
  return std::clamp<int64_t>(kBatchBytes / of_a_row, 1, kMostBatchRows);
}

void read_rows(std::span<const std::byte> bytes, const std::string& where, const std::function<void(Json row)>& add) {
  const auto buffer =
      std::make_shared<arrow::Buffer>(reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<int64_t>(bytes.size()));
  parquet::arrow::FileReaderBuilder builder;
  check(builder.Open(std::make_shared<arrow::io::BufferReader>(buffer)), where);
  parquet::ArrowReaderProperties properties(/*use_threads=*/false);
  properties.set_pre_buffer(false);
  check_expansion(*builder.raw_reader()->metadata(), bytes.size(), where);
  properties.set_batch_size(batch_rows(*builder.raw_reader()->metadata()));
  const auto reader = checked(builder.properties(properties)->Build(), where);
  const auto batches = checked(reader->GetRecordBatchReader(), where);
  check_names(*batches->schema(), where);
  while (const auto batch = checked(batches->Next(), where)) {
    check(batch->Validate(), where);
    for (int64_t i = 0; i < batch->num_rows(); ++i) {
      Json row = Json::object();
      for (int k = 0; k < batch->num_columns(); ++k) row[batch->column_name(k)] = value_at(*batch->column(k), i, where);
      add(std::move(row));
    }
  }
}

}  // namespace

bool reads_parquet() { return true; }

void read_parquet_rows(std::span<const std::byte> bytes, const std::string& where, const std::function<void(Json row)>& add) {
  try {
    read_rows(bytes, where, add);
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    fail(ErrorKind::kCorruption, "{}: Parquet: the file asks for more memory than there is", where);
  } catch (const std::exception& error) {  // parquet::ParquetException, of damaged files
    fail(ErrorKind::kCorruption, "{}: Parquet: {}", where, error.what());
  }
}

}  // namespace salient::models
