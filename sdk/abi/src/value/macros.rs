//! [`value!`](crate::value!) and [`object!`](crate::object!): values written as JSON.

/// Makes a [`Value`](crate::value::Value) from JSON-like text in which any expression may stand
/// that converts into a `Value`.
///
/// ```
/// use flowbay_abi::value;
///
/// let name = "lamp";
/// let lamp = value!({ "name": name, "on": true, "levels": [1, 2.5, null] });
/// assert_eq!(lamp.to_json().unwrap(), r#"{"name":"lamp","on":true,"levels":[1,2.5,null]}"#);
/// ```
#[macro_export]
macro_rules! value {
    (null) => { $crate::value::Value::Null };
    ([$($items:tt)*]) => {
        $crate::value::Value::Array({
            #[allow(unused_mut)]
            let mut array = $crate::value::Array::new();
            $crate::__value_items!(array $($items)*);
            array
        })
    };
    ({$($properties:tt)*}) => { $crate::value::Value::Object($crate::object!({$($properties)*})) };
    ($value:expr) => { $crate::value::Value::from($value) };
}

/// Makes an [`Object`](crate::value::Object): `object!({ "key": value })`, as in
/// [`value!`](crate::value!).
#[macro_export]
macro_rules! object {
    ({$($properties:tt)*}) => {{
        #[allow(unused_mut)]
        let mut object = $crate::value::Object::new();
        $crate::__value_properties!(object $($properties)*);
        object
    }};
}

#[doc(hidden)]
#[macro_export]
macro_rules! __value_items {
    ($array:ident) => {};
    ($array:ident null $(, $($rest:tt)*)?) => {
        $array.push($crate::value::Value::Null);
        $($crate::__value_items!($array $($rest)*);)?
    };
    ($array:ident [$($inner:tt)*] $(, $($rest:tt)*)?) => {
        $array.push($crate::value!([$($inner)*]));
        $($crate::__value_items!($array $($rest)*);)?
    };
    ($array:ident {$($inner:tt)*} $(, $($rest:tt)*)?) => {
        $array.push($crate::value!({$($inner)*}));
        $($crate::__value_items!($array $($rest)*);)?
    };
    ($array:ident $item:expr $(, $($rest:tt)*)?) => {
        $array.push($item);
        $($crate::__value_items!($array $($rest)*);)?
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __value_properties {
    ($object:ident) => {};
    ($object:ident $key:tt : null $(, $($rest:tt)*)?) => {
        $object.insert($key, $crate::value::Value::Null);
        $($crate::__value_properties!($object $($rest)*);)?
    };
    ($object:ident $key:tt : [$($inner:tt)*] $(, $($rest:tt)*)?) => {
        $object.insert($key, $crate::value!([$($inner)*]));
        $($crate::__value_properties!($object $($rest)*);)?
    };
    ($object:ident $key:tt : {$($inner:tt)*} $(, $($rest:tt)*)?) => {
        $object.insert($key, $crate::value!({$($inner)*}));
        $($crate::__value_properties!($object $($rest)*);)?
    };
    ($object:ident $key:tt : $value:expr $(, $($rest:tt)*)?) => {
        $object.insert($key, $value);
        $($crate::__value_properties!($object $($rest)*);)?
    };
}
