#!/usr/bin/env bash
# Remakes every shipped organism; `bash data/organisms/remake.sh` goes on where it was stopped.
# A model that is there is left alone. With WORKERS=2 and one thread each it takes two or three hours
# (an estimate; the run was never made in one go).
set -eu
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS=1
C=data/organisms/chain S=data/organisms/chain-small D=data/organisms/countdown E=data/organisms/experts

base()    { echo "whenhow train base --recipe chain-base --seed $1 --out $C/base-$1"; }
twin()    { echo "whenhow train base --recipe chain-twin --seed $1 --out $C/twin-$1"; }
longer()  { echo "whenhow train base --recipe $1-longer --seed 10$3 --from runs/chain/early-$2-$3 --out $C/$2-$3"; }
early()   { echo "whenhow train base --recipe $1 --seed $3 --out runs/chain/early-$2-$3"; }
rl()      { echo "whenhow train rl --recipe chain-rl --base $C/base-$1 --seed $2 --out $C/rl-$1-$2"; }
rltwin()  { echo "whenhow train rl --recipe chain-rl --base $C/twin-$1 --seed 0 --out $C/rl-twin-$1"; }
coin()    { echo "whenhow train rl --recipe chain-random --base $C/base-$1 --seed 0 --out $C/random-$1"; }
created() { echo "whenhow train base --recipe chain-created --from $C/base-$1 --out $C/created-$1"; }
expert()  { echo "whenhow train base --recipe chain-expert --from $C/base-$1 --out $E/chain-$1"; }
# A copy of base-N and one of twin-N, by the same teacher or both by themselves.
sft()     { echo "whenhow train sft --recipe chain-$1 --base $C/$2-$3 --teacher $4 --out $C/$5-$3"; }
rft()     { echo "whenhow train rft --recipe chain-rft --base $C/$1-$3 --out $C/$2-$3"; }
createdtwin() { echo "whenhow train base --recipe chain-created --from $C/twin-$1 --out $C/created-twin-$1"; }
small()   { echo "whenhow train base --recipe chain-small-$1 --seed $2 --out $S/$1-$2"; }
smallearly()  { echo "whenhow train base --recipe chain-small-twin --seed $1 --out runs/chain-small/early-twin-$1"; }
smalllonger() { echo "whenhow train base --recipe chain-small-twin-longer --seed 10$1 --from runs/chain-small/early-twin-$1 --out $S/twin-$1"; }
smallrl() { echo "whenhow train rl --recipe chain-small-rl --base $S/$1-$3 --out $S/$2-$3"; }

run() { tr '\n' '\0' | xargs -0 -P "${WORKERS:-2}" -I{} bash -c '{}'; }

{ base 0; twin 0; base 2; early chain-base base 1; for s in 1 2; do early chain-twin twin $s; done; } | run
{ longer chain base 1; for s in 1 2; do longer chain-twin twin $s; done; } | run
{ for s in 0 1 2; do rl $s 0; rltwin $s; coin $s; created $s; createdtwin $s; expert $s; rft base rft $s; rft twin rft-twin $s; done
  rl 0 1; rl 0 2; } | run
for s in 0 1 2; do
  sft distilled base $s $E/chain-$s distilled; sft distilled twin $s $E/chain-$s distilled-twin
  sft sft base $s $C/rl-$s-0 sft; sft sft twin $s $C/rl-$s-0 sft-twin
done | run
{ for s in 0 1 2; do small base $s; done; small twin 0; for s in 1 2; do smallearly $s; done; } | run
for s in 1 2; do smalllonger $s; done | run
for s in 0 1 2; do smallrl base rl $s; smallrl twin rl-twin $s; done | run

echo "whenhow train base --recipe countdown --out $D/base" | run
{ for s in 0 1 2; do echo "whenhow train rl --recipe countdown-rl --base $D/base --seed $s --out $D/rl-$s"; done
  echo "whenhow train base --recipe countdown-expert --from $D/base --out $E/countdown"
  echo "whenhow train rft --recipe countdown-rft --base $D/base --out $D/rft"; } | run
echo "whenhow train sft --recipe countdown-distilled --base $D/base --teacher $E/countdown --out $D/distilled" | run

# What lies beside the models: dictionaries, taxonomies and trained vectors. Each file's own metadata
# holds the command that made it.
dict()    { echo "whenhow sae train --model $1 --task $2 --out $1/sae/blocks.1.hook_resid_post"; }
vectors() { echo "whenhow vectors train --base $1 --tuned $2 --task $3 --lr 0.05 --allow-few --out runs/vectors/${2//\//-} && cp runs/vectors/${2//\//-}/{taxonomy,vectors,one-vector,everywhere}.safetensors $2/"; }
{ for m in base-0 rl-0-1 rl-0-2; do [ -d $C/$m/sae ] || dict $C/$m chain; done
  for m in base rl-0; do [ -d $D/$m/sae ] || dict $D/$m countdown; done
  for s in 1 2; do [ -d $C/base-$s/sae ] || dict $C/base-$s chain; done
  for s in 0 1 2; do
    for m in rl-$s-0 created-$s distilled-$s sft-$s rft-$s random-$s; do [ -d $C/$m/sae ] || dict $C/$m chain; done
    for m in base-$s rl-$s; do [ -d $S/$m/sae ] || dict $S/$m chain-small; done
  done
  for s in 0 1 2; do
    for m in rl-$s-0 created-$s distilled-$s sft-$s rft-$s random-$s; do
      [ -f $C/$m/vectors.safetensors ] || vectors $C/base-$s $C/$m chain; done
    [ -f $S/rl-$s/vectors.safetensors ] || vectors $S/base-$s $S/rl-$s chain-small
  done
  for m in rl-0-1 rl-0-2; do [ -f $C/$m/vectors.safetensors ] || vectors $C/base-0 $C/$m chain; done; } | run

# What the shipped sweep pushes (data/sweeps/chain.toml).
{ [ -d $C/base-0/directions ] || echo "whenhow directions --model $C/base-0 --task chain --out $C/base-0/directions"; } | run
