"""`python -m foreword`, which launchers such as `accelerate launch -m foreword train …` need."""

from foreword.cli.main import app

app()
