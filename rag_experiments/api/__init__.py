"""The package from Python: `import rag_experiments as rag`. The functions of the commands, without their printing."""
