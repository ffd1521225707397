// Whole evaluations and their documents in the store.
#include "pipeline/store_impl.h"

namespace salient::pipeline {

int64_t Store::put_evaluation(const EvaluationRecord& e, const std::vector<StoredDocument>& documents) {
  Transaction transaction(*this);
  const int64_t id = impl_->run_for_id(R"sql(
INSERT INTO evaluations (run_id, model_name, model_path, model_hash, model_bytes, base_name, base_path, base_hash, base_bytes,
                         settings_hash, evaluation, created)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (model_path, model_hash, base_path, base_hash, settings_hash) DO UPDATE SET run_id = excluded.run_id,
  model_name = excluded.model_name, model_bytes = excluded.model_bytes, base_name = excluded.base_name,
  base_bytes = excluded.base_bytes, evaluation = excluded.evaluation, created = excluded.created
RETURNING id)sql",
                                       e.run_id, e.model_name, e.model_path, e.model_hash, e.model_bytes, e.base_name, e.base_path,
                                       e.base_hash, e.base_bytes, e.settings_hash, e.evaluation, utc_now());
  impl_->run("DELETE FROM documents WHERE evaluation_id = ?", id);
  for (const StoredDocument& d : documents) {
    impl_->run("INSERT INTO documents (evaluation_id, task, position, document, model, base) VALUES (?, ?, ?, ?, ?, ?)", id, d.task,
               d.position, d.document, d.model, d.base);
  }
  transaction.commit();
  return id;
}

std::vector<EvaluationRecord> Store::list_evaluations(const EvaluationFilter& filter) const {
  Query query(
      "SELECT id, run_id, model_name, model_path, model_hash, model_bytes, base_name, base_path, base_hash, base_bytes, "
      "settings_hash,"
      " evaluation, created FROM evaluations");
  query.where_pattern("model_name", filter.model);
  query.where_exact("model_path", filter.model_path);
  if (filter.run_id) query.where("run_id = CAST(? AS INTEGER)", std::to_string(*filter.run_id));
  query.order_and_limit("created DESC, id DESC", filter.limit);
  return impl_->select<EvaluationRecord>(query, [](Statement& row, EvaluationRecord& e) {
    row >> e.id >> e.run_id >> e.model_name >> e.model_path >> e.model_hash >> e.model_bytes >> e.base_name >> e.base_path >>
        e.base_hash >> e.base_bytes >> e.settings_hash >> e.evaluation >> e.created;
  });
}

std::vector<StoredDocument> Store::list_documents(int64_t evaluation_id) const {
  Query query("SELECT task, position, document, model, base FROM documents");
  query.where("evaluation_id = CAST(? AS INTEGER)", std::to_string(evaluation_id));
  query.order_and_limit("task, position", 0);
  return impl_->select<StoredDocument>(
      query, [](Statement& row, StoredDocument& d) { row >> d.task >> d.position >> d.document >> d.model >> d.base; });
}

}  // namespace salient::pipeline
