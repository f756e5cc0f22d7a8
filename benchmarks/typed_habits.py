"""About two hundred things that people type by habit from other tools, by tool and the algorithm they train."""

from __future__ import annotations

HABITS: dict[tuple[str, str], str] = {
    ("transformers", "algorithm=ctl"): """
        --learning_rate 1e-5 ; --num_train_epochs 3 ; --per_device_train_batch_size 32 ; --output_dir out ;
        --do_train ; --do_train --do_eval ; --model_name_or_path bert-base-uncased ; --fp16 ; --bf16 ;
        --report_to none ; --report_to wandb ; --seed 1 ; --warmup_ratio 0.1 ; --weight_decay 0.01 ;
        --lr_scheduler_type cosine ; --gradient_checkpointing ; --gradient_accumulation_steps 4 ;
        --logging_steps 10 ; --save_steps 500 ; --eval_steps 100 ; --evaluation_strategy steps ;
        --save_total_limit 2 ; --load_best_model_at_end ; --overwrite_output_dir ; --run_name first ;
        --resume_from_checkpoint outputs/x/checkpoint-10 ; --train_file questions.csv ;
        --train_file questions.csv --validation_file dev.csv ; --dataset_name squad ; --max_seq_length 128 ;
        --max_train_samples 64 ;
        --max_eval_samples 8 ; --cache_dir /tmp/c ; --dataloader_num_workers 2 ; --optim adamw_torch ;
        --deepspeed ds.json ; --push_to_hub ; --no_cuda ; --preprocessing_num_workers 4 ;
        --torch_dtype bfloat16 ; --tokenizer_name bert-base-uncased ; --trust_remote_code ; --logging_dir logs ;
        --group_by_length ; --overwrite_cache ; --use_fast_tokenizer
    """,
    ("TRL", "algorithm=sft"): """
        --use_peft --lora_r 16 --lora_alpha 32 ; --peft ; --max_length 1024 ; --packing ; --load_in_4bit ;
        --attn_implementation sdpa ; --lora_target_modules all-linear ; --completion_only_loss true ;
        --assistant_only_loss true ; --dataset_text_field text ; --eos_token '</s>' ; --max_prompt_length 512 ;
        --use_liger_kernel
    """,
    ("sentence-transformers", "algorithm=ctl"): """
        model=all-MiniLM-L6-v2 ; model=sentence-transformers/all-MiniLM-L6-v2 ; train_batch_size=16 ;
        num_epochs=2 ; warmup_steps=100 ; evaluation_steps=500 ; model_save_path=out ; loss=mnrl ;
        loss=MultipleNegativesRankingLoss ; scale=20 ; batch_sampler=no_duplicates ; mini_batch_size=32 ;
        use_amp=true ; matryoshka_dims=[384,128] ; prompts.query='query: ' ; normalize_embeddings=true
    """,
    ("Lightning", "algorithm=ctl"): """
        trainer.max_epochs=3 ; trainer.devices=1 ; trainer.accelerator=gpu ; trainer.precision=bf16-mixed ;
        trainer.gradient_clip_val=1.0 ; trainer.accumulate_grad_batches=4 ; trainer.fast_dev_run=true ;
        trainer.limit_train_batches=10 ; trainer.val_check_interval=100 ; ckpt_path=last ; logger=wandb ;
        trainer.strategy=ddp ; callbacks=early_stopping ; data.batch_size=32 ; data.num_workers=4 ;
        model.lr=1e-5 ; debug=true ; trainer.log_every_n_steps=10
    """,
    ("LLaMA-Factory", "algorithm=sft"): """
        stage=sft ; finetuning_type=lora ; --finetuning_type full ; lora_rank=8 ; lora_target=all ;
        cutoff_len=2048 ; template=llama3 ; dataset=questions.csv ; dataset_dir=data ; max_samples=100 ;
        val_size=0.1 ; plot_loss=true ; flash_attn=fa2 ; quantization_bit=4 ; adapter_name_or_path=out
    """,
    ("axolotl", "algorithm=sft"): """
        base_model=HuggingFaceTB/SmolLM2-135M-Instruct ; adapter=lora ; sequence_len=2048 ; micro_batch_size=2 ;
        val_set_size=0.05 ; datasets=questions.csv ; sample_packing=true ; wandb_project=mine ;
        wandb_entity=us ; load_in_8bit=true ; lora_target_linear=true ; flash_attention=true ;
        optimizer=adamw_torch_fused
    """,
    ("FlagEmbedding", "algorithm=ctl"): """
        --train_data questions.csv ; --query_max_len 64 ; --passage_max_len 256 ; --train_group_size 8 ;
        --negatives_cross_device ; --temperature 0.02 ; --sentence_pooling_method cls ;
        --normalize_embeddings True ; --query_instruction_for_retrieval 'query: ' ;
        --knowledge_distillation True ; --same_dataset_within_batch True ; --use_inbatch_neg ;
        --unified_finetuning True
    """,
    ("Tevatron and DPR", "algorithm=ctl"): """
        --negatives_x_device ; --q_max_len 32 ; --p_max_len 128 ; --train_n_passages 8 ; --untie_encoder ;
        --grad_cache ; --gc_p_chunk_size 8 ; --pooling eos ; --normalize ; --lora ;
        --passage_prefix 'passage: ' ; --query_prefix 'query: ' ; --encode_in_path corpus.jsonl ;
        --append_eos_token ; --hn_weight 1 ; train.batch_size=16 ; encoder.sequence_length=256 ;
        train.hard_negatives=1 ; train.other_negatives=0
    """,
    ("generic", "algorithm=ctl"): """
        lr=1e-5 ; learning_rate=1e-5 ; trainer.lr=1e-5 ; epochs=3 ; batch_size=16 ; bs=16 ; steps=100 ;
        trainer.batch_size=16 ; device=cuda ; device=cpu ; wandb.project=mine ; wandb=disabled ; wandb=true ;
        output_dir=out ; retriever.top_k=5 ; top_k=5 ; lora=true ; model.lora=true ; --dry-run ; dry_run=true ;
        resume=true ; ctl ; seed=1,2 ; model=minilm,bge_small ; --seed 1,2 ; --config foo.yaml ; -c foo.yaml ;
        config=foo.yaml ; data=questions.csv ; data=csv data.path=questions.csv ; --data questions.csv ;
        --config-name x ; verbose=true ; --verbose ; -v ; --quiet ; gpus=1 ; num_gpus=1 ; n_gpu=1 ; cuda=0 ;
        --gpu 0 ; warmup=100 ; dropout=0.1 ; patience=3 ; early_stopping=true ; train=questions.csv ;
        num_workers=2 ; grad_clip=1.0 ; weight_decay=0.01 ; scheduler=cosine ; optimizer=adam ; eval_every=100 ;
        data.train=questions.csv ; data.file=questions.csv ; data.train_file=questions.csv ; data.question=q ;
        question_column=q ; data.column.question=q ; evaluate=true ; test=true ; mode=train ; log_dir=x ;
        save=out ; model.name=bert-base-uncased ; model.max_len=128 ; max_len=128 ;
        embedding_model=all-MiniLM-L6-v2 ; encoder=all-MiniLM-L6-v2 ; llm=gpt2 ; retriever=dense ;
        retriever=faiss ; retriever=dpr ; k=5 ; chunk_size=256 ; chunk_overlap=20 ; index=faiss ; margin=0.1 ;
        num_negatives=3 ; negatives=hard
    """,
}
"""(Tool, what is trained) → what is typed, between semicolons."""
