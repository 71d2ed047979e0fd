#!/bin/sh
# Prints the build of jax this machine wants: cuda, tpu or cpu.
if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; then
  echo cuda
elif [ -e /dev/accel0 ] || { [ -d /dev/vfio ] && [ -n "$TPU_NAME$TPU_ACCELERATOR_TYPE" ]; }; then
  echo tpu
else
  echo cpu
fi
