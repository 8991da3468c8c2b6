"""What several tests share: tiny backbones, made-up inputs, benches to run commands on."""
