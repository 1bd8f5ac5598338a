//! The `#[node]` attribute of the Flowbay SDK. Use it through `flowbay_sdk::node`.

#![deny(missing_docs)]

use proc_macro::TokenStream;
use quote::quote;
use syn::{
    Expr, Ident, ItemImpl, LitStr, Token,
    parse::{Parse, ParseStream},
    parse_macro_input,
    punctuated::Punctuated,
};

/// Arguments: the type's name, then `key = value` pairs that are the methods of `NodeType`.
struct NodeArgs {
    name: LitStr,
    settings: Vec<(Ident, Expr)>,
}

impl Parse for NodeArgs {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let name = input.parse().map_err(|error| {
            syn::Error::new(
                error.span(),
                "the first argument is the node type's name, as in #[node(\"lower-case\")]",
            )
        })?;
        let mut settings = Vec::new();
        if !input.is_empty() {
            input.parse::<Token![,]>()?;
            let pairs = Punctuated::<Setting, Token![,]>::parse_terminated(input)?;
            settings.extend(pairs.into_iter().map(|setting| (setting.key, setting.value)));
        }
        Ok(Self { name, settings })
    }
}

struct Setting {
    key: Ident,
    value: Expr,
}

const SETTINGS: &[&str] = &[
    "role",
    "category",
    "color",
    "icon",
    "icon_svg",
    "align",
    "inputs",
    "outputs",
    "concurrency",
    "credentials",
    "html",
    "locales",
];

impl Parse for Setting {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let key: Ident = input.parse()?;
        if !SETTINGS.iter().any(|setting| key == setting) {
            let known = SETTINGS.join(", ");
            return Err(syn::Error::new(
                key.span(),
                format!("no setting of a node type; there are: {known}"),
            ));
        }
        input.parse::<Token![=]>()?;
        Ok(Self { key, value: input.parse()? })
    }
}

/// Describes a node type: stands on its `impl Node` and adds the type's description.
///
/// ```text
/// #[node("lower-case", category = "function", inputs = 1, outputs = 1)]
/// impl Node for LowerCase { … }
/// ```
#[proc_macro_attribute]
pub fn node(args: TokenStream, item: TokenStream) -> TokenStream {
    let NodeArgs { name, settings } = parse_macro_input!(args as NodeArgs);
    let item = parse_macro_input!(item as ItemImpl);
    if item.trait_.is_none() {
        return syn::Error::new_spanned(item.self_ty, "#[node] stands on `impl Node for …`")
            .into_compile_error()
            .into();
    }
    let calls = settings.iter().map(|(key, value)| quote!(.#key(#value)));
    let (generics, _, conditions) = item.generics.split_for_impl();
    let node = &item.self_ty;
    quote! {
        impl #generics ::flowbay_sdk::Described for #node #conditions {
            const TYPE: ::flowbay_sdk::NodeType = ::flowbay_sdk::NodeType::new(#name) #(#calls)*;
        }
        #item
    }
    .into()
}
