#!/usr/bin/env bash
# Remakes every shipped organism; `bash data/organisms/remake.sh` goes on where it was stopped.
# A model that is there is left alone. With WORKERS=2 and one thread each it takes an hour or two (an estimate; the run was never made in one go).
set -eu
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS=1
C=data/organisms/chain

base()    { echo "whenhow train base --recipe chain-base --seed $1 --out $C/base-$1"; }
twin()    { echo "whenhow train base --recipe chain-twin --seed $1 --out $C/twin-$1"; }
longer()  { echo "whenhow train base --recipe $1-longer --seed 10$3 --from runs/chain/early-$2-$3 --out $C/$2-$3"; }
early()   { echo "whenhow train base --recipe $1 --seed $3 --out runs/chain/early-$2-$3"; }
rl()      { echo "whenhow train rl --recipe chain-rl --base $C/base-$1 --seed $2 --out $C/rl-$1-$2"; }
rltwin()  { echo "whenhow train rl --recipe chain-rl --base $C/twin-$1 --seed 0 --out $C/rl-twin-$1"; }
coin()    { echo "whenhow train rl --recipe chain-random --base $C/base-$1 --seed 0 --out $C/random-$1"; }
created() { echo "whenhow train base --recipe chain-created --from $C/base-$1 --out $C/created-$1"; }

run() { tr '\n' '\0' | xargs -0 -P "${WORKERS:-2}" -I{} bash -c '{}'; }

{ base 0; twin 0; base 2; early chain-base base 1; for s in 1 2; do early chain-twin twin $s; done; } | run
{ longer chain base 1; for s in 1 2; do longer chain-twin twin $s; done; } | run
{ for s in 0 1 2; do rl $s 0; rltwin $s; coin $s; created $s; done; rl 0 1; rl 0 2; } | run
D=data/organisms/countdown
echo "whenhow train base --recipe countdown --out $D/base" | run
for s in 0 1 2; do
  echo "whenhow train rl --recipe countdown-rl --base $D/base --seed $s --out $D/rl-$s"
done | run
