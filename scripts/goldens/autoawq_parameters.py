#!/usr/bin/env python3
"""Golden: every parameter of AutoAWQ's quantize() and quant_config with its default, from AutoAWQ's own signatures.

usage: autoawq_parameters.py > tests/data/settings/autoawq_parameters.json      (an environment with autoawq 0.2.9)
"""
import dataclasses
import inspect
import json

from awq.models._config import AwqConfig
from awq.models.base import BaseAWQForCausalLM


def plain(value):
    return getattr(value, "__name__", value)


signature = inspect.signature(BaseAWQForCausalLM.quantize).parameters
quantize = {name: plain(p.default) for name, p in signature.items() if name not in ("self", "kwargs")}
config = {field.name: plain(field.default) for field in dataclasses.fields(AwqConfig)}
print(json.dumps({"quantize": quantize, "quant_config": config}, indent=1))
