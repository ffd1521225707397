// What was measured of an artifact, in its quantization_metadata.json and its model card: a table, and the "model-index" that the
// Hugging Face Hub shows (https://huggingface.co/docs/hub/model-cards#evaluation-results). The weights and their hashes stay as
// they are.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "common/json.h"
#include "eval/result.h"

namespace salient::pipeline {

// As the metadata keeps it under "evaluation": [{"task", "metric", "value", "stderr", "n", "base", "headline", "data",
// "data_sha256", "settings"}, ...]. "base": of the original, null where it was not evaluated; "data": the file's name. Speed and
// memory belong to a machine and are left out, as are figures that are no finite number.
Json quality_figures(const eval::ModelResult& result);

// A figure of the same task, metric and data takes the place of the earlier one; others follow.
Json merge_figures(const Json& earlier, const Json& later);

// The card's section, from its heading on; without figures how to measure them.
std::string quality_section(const Json& figures);
// One line of a card's header, with the headline figures; "" = there are none.
std::string model_index(std::string_view model_name, const Json& figures);

// A card in which the section and the line are as they follow from `figures`; everything else is kept, whoever wrote it. A
// model-index that is not on one line is somebody else's and stays, too.
std::string with_figures(std::string card, std::string_view model_name, const Json& figures);

// Errors: as publish_figures, before any work. It takes the folder alone.
void check_card(const std::filesystem::path& folder);
// Adds figures to the metadata and the card of an artifact folder. A folder with a card alone, as an export leaves, gets these
// figures and loses earlier ones. Waits for others that add figures to the same folder. Errors: invalid argument for anything but a
// folder with a README.md of Salient's, which has its metadata beside it or the section's heading in it; corruption; io; cancelled.
void publish_figures(const std::filesystem::path& folder, const Json& figures);
// Its second half, for whoever holds the folder: `metadata` as it was read, null where there is none. Errors: io where another
// artifact has taken the folder's place since, by "fingerprint" and "files_sha256" of its metadata; nothing is written then.
void write_figures(const std::filesystem::path& folder, Json metadata, const Json& figures);

}  // namespace salient::pipeline
