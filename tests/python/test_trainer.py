"""PostTrainQuantization in a real Trainer: a few steps on the demo model."""

import importlib.util
import json
import os
import pathlib
import subprocess
import unittest

import salient
from support import DATA, DEMO, FolderTest, artifact_bytes

STEPS = 3


def rows(count):
    with open(DATA / "openmath_train.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for _, line in zip(range(count), file)]


class Training(FolderTest):
    @classmethod
    def setUpClass(cls):
        import transformers

        transformers.logging.set_verbosity_error()
        cls.transformers = transformers
        cls.tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO)
        cls.dataset = []
        for row in rows(24):
            text = cls.tokenizer.apply_chat_template(
                [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}], tokenize=False
            )
            ids = cls.tokenizer(text, truncation=True, max_length=96)["input_ids"]
            cls.dataset.append({"input_ids": ids, "labels": list(ids), "attention_mask": [1] * len(ids)})

    def train(self, callback, model=None, **arguments):
        t = self.transformers
        model = model or t.AutoModelForCausalLM.from_pretrained(DEMO)
        options = dict(
            output_dir=str(self.folder / "out"),
            max_steps=STEPS,
            per_device_train_batch_size=2,
            learning_rate=1e-3,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            logging_strategy="no",
            seed=3,
        )
        options.update(arguments)
        trainer = t.Trainer(
            model=model,
            args=t.TrainingArguments(**options),
            train_dataset=self.dataset,
            processing_class=self.tokenizer,
            data_collator=t.DataCollatorForSeq2Seq(self.tokenizer),
            callbacks=[callback],
        )
        trainer.train()
        return trainer

    def callback(self, **options):
        given = dict(
            samples=8,
            quantization={"n_grid": 4},
            tasks=[{"name": "perplexity", "file": DATA / "heldout.txt", "limit": 2}],
            evaluation={"throughput": False},
            progress=False,
        )
        given.update(options)
        return salient.PostTrainQuantization(**given)

    def test_saves_quantizes_and_evaluates(self):
        callback = self.callback()
        trainer = self.train(callback)
        self.assertIsNone(callback.error)
        out = self.folder / "out"
        self.assertEqual(callback.checkpoint_folder, out / "final")
        # What was saved is what was trained.
        saved = self.transformers.AutoModelForCausalLM.from_pretrained(out / "final").state_dict()
        for name, tensor in trainer.model.state_dict().items():
            self.assertTrue(bool((saved[name] == tensor).all()), name)
        base = self.transformers.AutoModelForCausalLM.from_pretrained(DEMO).state_dict()
        self.assertTrue(any(bool((base[name] != tensor).any()) for name, tensor in saved.items()), "nothing was trained")
        metadata = json.loads((out / "final" / "training_metadata.json").read_text())
        self.assertEqual(metadata["base_model"], "demo")
        self.assertEqual(metadata["training"], {"method": "SFT", "peft": "NoPeft", "steps": STEPS})
        artifact = pathlib.Path(callback.result["artifact"])
        self.assertEqual(artifact.parent, out)
        self.assertEqual(artifact.name, "demo-train_SFT_NoPeft_AWQ_w4_g128_headfp16_quantized")
        recorded = json.loads((artifact / "quantization_metadata.json").read_text())
        self.assertIn("calibration_rows.jsonl", json.dumps(recorded))
        names = [task["task"] for task in callback.result["evaluation"]["model"]["tasks"]]
        self.assertEqual(names, ["perplexity"])
        self.assertTrue((out / "salient.db").is_file())
        # The training goes on with its model as before: in the same process, the work has changed nothing of it.
        import torch

        self.assertTrue(torch.is_grad_enabled())
        trainer.train()

    def test_uses_the_checkpoint_that_the_trainer_has_saved(self):
        callback = self.callback(tasks=[])
        self.train(callback, save_strategy="steps", save_steps=STEPS)
        self.assertIsNone(callback.error)
        checkpoint = self.folder / "out" / f"checkpoint-{STEPS}"
        self.assertEqual(callback.checkpoint_folder, checkpoint)
        self.assertFalse((self.folder / "out" / "final").exists())
        before = artifact_bytes(checkpoint)
        again = salient.post_train(
            checkpoint, config=callback._config(checkpoint, self.folder / "out", type("Loader", (), {"dataset": self.dataset}))
        )
        self.assertEqual(again["stages_run"], 0)
        self.assertEqual(artifact_bytes(checkpoint), before)

    def logits(self, model, ids):
        import numpy

        file = self.folder / "logits.npy"
        words = ["logits", "--model", str(model), "--ids", ",".join(map(str, ids)), "--out", str(file)]
        subprocess.run([os.environ["SALIENT_TEST_PROGRAM"], *words], check=True)
        return numpy.load(file)

    @unittest.skipUnless(importlib.util.find_spec("peft"), "peft is not installed")
    def test_a_lora_adapter_is_quantized_merged(self):
        import peft
        import torch

        base = self.transformers.AutoModelForCausalLM.from_pretrained(DEMO)
        lora = peft.LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
        callback = self.callback(tasks=[])
        trainer = self.train(callback, model=peft.get_peft_model(base, lora), learning_rate=2e-2)
        self.assertIsNone(callback.error)
        out = self.folder / "out"
        self.assertTrue((out / "final" / "adapter_model.safetensors").is_file())
        self.assertFalse((out / "final" / "model.safetensors").exists(), "the adapter alone is saved")
        metadata = json.loads((out / "final" / "training_metadata.json").read_text())
        self.assertEqual(metadata["training"], {"method": "SFT", "peft": "LoRA", "steps": STEPS})
        artifact = pathlib.Path(callback.result["artifact"])
        self.assertEqual(artifact.name, "demo-train_SFT_LoRA_AWQ_w4_g128_headfp16_quantized")

        # The artifact is the trained model's, not its base's: its logits are nearer to what PEFT computes.
        ids = self.dataset[0]["input_ids"]
        trainer.model.eval()
        with torch.no_grad():
            trained = trainer.model(input_ids=torch.tensor([ids])).logits[0].float()
            untrained = self.transformers.AutoModelForCausalLM.from_pretrained(DEMO)(torch.tensor([ids])).logits[0].float()
        found = torch.tensor(self.logits(artifact, ids))
        to_trained = (found - trained).square().mean().sqrt().item()
        to_base = (found - untrained).square().mean().sqrt().item()
        moved = (trained - untrained).square().mean().sqrt().item()
        self.assertGreater(moved, 0.2, "the training moved too little to tell")
        self.assertLess(to_trained, 0.3 * to_base)

    def test_training_file_and_settings(self):
        train_file = self.folder / "sums.jsonl"
        train_file.write_text("".join(json.dumps(row) + "\n" for row in rows(40)))
        callback = self.callback(
            train_file=train_file,
            dataset="sums",
            system_prompt="Think.",
            method="gptq",
            bits=3,
            group_size=64,
            training_method="DPO",
            tasks=[],
            process=True,
            quantization={"format": "compressed-tensors"},
            output_folder=self.folder / "artifacts",
        )
        self.train(callback)
        self.assertIsNone(callback.error)
        artifact = pathlib.Path(callback.result["artifact"])
        self.assertEqual(artifact.parent, self.folder / "artifacts")
        self.assertEqual(artifact.name, "demo-sums_DPO_NoPeft_GPTQ_w3_g64_headfp16_quantized")
        self.assertTrue(callback.result["calibration"].endswith(".jsonl"))
        self.assertIn("Think.", pathlib.Path(callback.result["calibration"]).read_text())

    def test_an_error_loses_nothing(self):
        callback = self.callback(group_size=100)
        with self.assertLogs("salient", "ERROR") as logged:
            self.train(callback)
        self.assertIsInstance(callback.error, salient.SalientError)
        self.assertIsNone(callback.result)
        self.assertIn("out/final", logged.output[0])
        self.transformers.AutoModelForCausalLM.from_pretrained(self.folder / "out" / "final")
        # The same checkpoint afterwards, with what was wrong put right.
        found = salient.post_train(
            callback.checkpoint_folder,
            config={
                "quantization": {"group_size": 128, "n_grid": 4},
                "calibration": {"file": self.folder / "out/calibration_rows.jsonl"},
                "evaluation": {"throughput": False},
            },
        )
        self.assertTrue(pathlib.Path(found["artifact"]).is_dir())
        with self.assertRaises(salient.SalientError):
            self.train(self.callback(group_size=100, raise_errors=True))

    def test_only_rank_0_works(self):
        callback = self.callback()
        state = self.transformers.TrainerState(is_world_process_zero=False)
        callback.on_train_end(self.transformers.TrainingArguments(output_dir=str(self.folder / "out"), use_cpu=True), state, None)
        self.assertIsNone(callback.result)
        self.assertFalse((self.folder / "out").exists())

    def test_a_missing_training_file_is_said_before_the_training(self):
        with self.assertRaises(salient.InvalidArgumentError):
            self.train(self.callback(train_file=self.folder / "missing.jsonl"))

    def test_sharded_weights_are_refused(self):
        class Sharded:
            output_dir = str(self.folder / "out")
            load_best_model_at_end = False
            fsdp = "full_shard"

        callback = self.callback()
        with self.assertLogs("salient", "ERROR"):
            callback.on_train_end(Sharded, self.transformers.TrainerState(is_world_process_zero=True, global_step=STEPS), None)
        self.assertIsInstance(callback.error, salient.UnsupportedError)


class Metadata(FolderTest):
    def test_configuration_of_a_plan(self):
        with open(DEMO / "training_metadata.json", encoding="utf-8") as file:
            metadata = json.load(file)
        config = salient.config_from_training_metadata(self.folder / "runs" / "checkpoint-5", metadata)
        self.assertEqual(config["model"]["path"], str((self.folder / "runs" / "checkpoint-5").resolve()))
        self.assertEqual(config["output"]["folder"], str((self.folder / "runs").resolve()))
        self.assertEqual(
            config["quantization"],
            {"method": "awq", "bits": 4, "activation_bits": 8, "kv_cache_bits": 8, "group_size": 128, "lm_head": "fp16"},
        )

    def test_a_checkpoint_without_or_with_a_broken_file(self):
        with self.assertRaises(salient.NotFoundError):
            salient.post_train(self.folder)
        (self.folder / "training_metadata.json").write_text("{")
        with self.assertRaises(salient.CorruptionError):
            salient.post_train(self.folder)


if __name__ == "__main__":
    unittest.main()
